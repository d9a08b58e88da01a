"""A tokenizer for tiny models: one token a word, so that texts of a known length are easy to write."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WordTokenizer:
    """The part of a transformers tokenizer that the library uses; token 1 is the beginning of sequence."""

    vocab: int = 61
    bos_token_id: int = 1

    def encode(self, text: str, **_: object) -> list[int]:
        return [self.bos_token_id, *(3 + sum(map(ord, word)) % (self.vocab - 3) for word in text.split())]

    def decode(self, ids: list[int], **_: object) -> str:
        return " ".join(f"w{i}" for i in ids)


TEXTS = [
    "the cat sat on the mat and looked at the rain",
    "a river runs under the old stone bridge",
    "numbers come in order : one two three four five six seven",
    "she opened the letter and read it twice before speaking",
    "short text here",
    "the last of the ships left the harbour at dawn with empty holds",
]
