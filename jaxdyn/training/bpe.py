"""The tokenizer: byte-level byte-pair encoding, trained on the given text, so that every text has an encoding.

A digit is always a token of its own, so that arithmetic shows the model its digits. The one special token, id 0, goes
in front of a text and ends a generated one. Sources of the two ideas: Sennrich, Haddow and Birch, arXiv 1508.07909
(byte pairs); Radford et al., "Language models are unsupervised multitask learners" (on bytes).
"""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from jaxdyn.errors import InputError
from jaxdyn.training.settings import BOS

SPECIAL = "<|endoftext|>"


def train_tokenizer(documents: Sequence[str], *, vocab: int) -> Tokenizer:
    """Learn merges from documents.

    Parameters
    ----------
    documents
        Strings, in any order.
    vocab
        Tokens asked for: the special token, 256 bytes, and merges; fewer where the text has no more pairs.

    Returns
    -------
    tokenizers.Tokenizer
        Adds the special token in front of a text; decodes what it encodes to the same text. The same documents give
        the same merges.
    """
    tokenizer = Tokenizer(models.BPE())
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    assert tokenizer.token_to_id(SPECIAL) == BOS
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single=f"{SPECIAL} $A", pair=f"{SPECIAL} $A {SPECIAL} $B", special_tokens=[(SPECIAL, BOS)]
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, *, context: int) -> None:
    """Write tokenizer.json and the tokenizer_config.json that transformers reads beside it."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL,
        "eos_token": SPECIAL,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read the tokenizer of a run again."""
    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises a bare Exception for a missing or damaged file
        msg = f"out: cannot read {folder / 'tokenizer.json'} ({error}); start the run again in another folder"
        raise InputError(msg) from error
