"""Files to documents to a stream; the tokenizer; what a step sees."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxdyn import InputError
from jaxdyn.training import batches, bpe, corpus
from jaxdyn.training.evaluation import pieces
from jaxdyn.training.settings import BOS

STORIES = [
    f"Story {i}: the {colour} cat sat on {i * 7} mats, and slept." for i, colour in enumerate(["red", "grey"] * 6)
]


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    path = tmp_path / "stories.json"
    path.write_text(json.dumps(STORIES))
    return path


def test_a_json_file_is_a_list_of_documents_and_can_be_sliced(stories: Path) -> None:
    whole, first, rest = (corpus.read_text(f"{stories}{part}") for part in ("", "[:5]", "[5:]"))
    assert list(whole.documents) == STORIES
    assert first.documents + rest.documents == whole.documents
    assert len(first.documents) == 5
    assert (first.name, rest.name) == ("stories.json[:5]", "stories.json[5:]")
    assert len({whole.sha256, first.sha256, rest.sha256}) == 3


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    assert corpus.read_text(str(tmp_path / "a.txt")).documents == ("one\n\ntwo\n",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", " \n", "holds an empty document"),
        ("a.txt", None, "cannot read"),
        ("a.txt", b"\xff\xfe\xff", "cannot read"),
        ("a.csv", "x", "allowed .txt"),
        ("a.json", "{", "cannot read"),
        ("a.json", '{"a": 1}', "does not hold a list of strings"),
        ("a.json", '["a", 1]', "does not hold a list of strings"),
        ("a.json", "[]", "holds no document"),
        ("a.json[5:]", '["a", "b"]', "holds no document"),
        ("a.json", '["a", ""]', "holds an empty document"),
    ],
)
def test_texts_that_cannot_be_used(tmp_path: Path, name: str, content: str | bytes | None, message: str) -> None:
    if content is not None:
        path = tmp_path / name.split("[")[0]
        path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
    with pytest.raises(InputError, match=message):
        corpus.read_text(str(tmp_path / name))


def test_the_same_name_twice_is_refused(stories: Path) -> None:
    with pytest.raises(InputError, match=r"held-out: stories.json is there twice"):
        corpus.read_all([str(stories), str(stories)], "held-out")


@pytest.mark.parametrize("text", [*STORIES[:2], "naïve “雨”\n\n\t  x", "3+45=48", bpe.SPECIAL[:5]])
def test_the_tokenizer_gives_back_every_text(text: str) -> None:
    tokenizer = bpe.train_tokenizer(STORIES, vocab=300)
    ids = tokenizer.encode(text).ids
    assert ids[0] == BOS
    assert BOS not in ids[1:]
    assert tokenizer.decode(ids[1:]) == text
    assert 257 < tokenizer.get_vocab_size() < 300  # so short a text has no more pairs to merge


def test_a_digit_is_a_token_and_merges_are_repeatable() -> None:
    tokenizer = bpe.train_tokenizer(STORIES * 20, vocab=400)
    assert len(tokenizer.encode("2024", add_special_tokens=False).ids) == 4
    assert len(tokenizer.encode("cat", add_special_tokens=False).ids) == 1
    assert bpe.train_tokenizer(STORIES * 20, vocab=400).to_str() == tokenizer.to_str()


def test_the_stream_puts_the_special_token_before_each_document() -> None:
    documents = [np.asarray(ids, np.int32) for ids in ([5, 6, 7], [8], [9, 10])]
    assert corpus.stream(documents, context=4).tolist() == [BOS, 5, 6, 7, BOS, 8, BOS, 9, 10]
    with pytest.raises(InputError, match=r"got 9 tokens to train on; allowed 10 or more"):
        corpus.stream(documents, context=5)


def test_the_split_holds_out_the_end() -> None:
    documents = [np.arange(60), np.arange(60, 90), np.arange(90, 100)]
    kept, held = corpus.split(documents, share=0.25)
    assert np.concatenate(kept).tolist() == list(range(75))
    assert np.concatenate(held).tolist() == list(range(75, 100))
    assert [len(part) for part in kept] == [60, 15]


def test_pieces_hold_every_token_once() -> None:
    documents = [np.arange(1, 8), np.arange(8, 11)]
    parts = pieces(documents, context=4)
    assert [part.tolist() for part in parts] == [[BOS, 1, 2, 3], [BOS, 4, 5, 6], [BOS, 7], [BOS, 8, 9, 10]]


def test_an_epoch_sees_every_window_once_and_each_its_own_order() -> None:
    stream, context, size = np.arange(1000), 10, 7
    count = batches.windows_per_epoch(len(stream), context)
    rows = np.concatenate(
        [batches.batch(stream, step, seed=3, size=size, context=context) for step in range(2 * count // size + 1)]
    )
    first, second = rows[:count, 0], rows[count : 2 * count, 0]
    for starts in (first, second):
        assert len(set(starts.tolist())) == count
        assert len({start % context for start in starts.tolist()}) == 1  # one offset an epoch
    assert not np.array_equal(first, second)
    assert (rows[:, 1:] - rows[:, :-1] == 1).all()
    assert rows.shape[1] == context + 1


def test_the_order_is_a_function_of_seed_and_step() -> None:
    stream = np.arange(500)
    options = {"size": 4, "context": 8}
    at_30 = batches.batch(stream, 30, seed=0, **options)
    for step in (29, 3, 31):
        assert not np.array_equal(batches.batch(stream, step, seed=0, **options), at_30)
    batches._epoch.cache_clear()
    assert np.array_equal(batches.batch(stream, 30, seed=0, **options), at_30)
    assert not np.array_equal(batches.batch(stream, 30, seed=1, **options), at_30)


@pytest.mark.parametrize("length", [16, 17, 23])
def test_the_shortest_stream_fills_its_windows(length: int) -> None:
    stream = np.arange(length)
    rows = np.concatenate([batches.batch(stream, step, seed=0, size=1, context=8) for step in range(40)])
    assert rows.max() < length
