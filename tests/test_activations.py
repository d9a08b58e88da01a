"""Capture: the right positions, the same numbers in a batch as alone, nothing of vocabulary size."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn import activations
from jaxdyn.activations import Prompts, capture, choose_positions, context_at, massive_coordinates, pad, tokenise
from jaxdyn.errors import InputError
from jaxdyn.models import attention, decoder
from tests.jacobians.cases import compilations
from tests.models.tiny import TINY, random_ids

LENGTHS = (5, 1, 8, 5, 8)
TOLERANCE = 1e-12
SIZES = {
    "llama": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3},
    "gpt2": {"n_embd": 16, "n_layer": 3},
    "gpt_neox": {"hidden_size": 16, "intermediate_size": 24},
    "gemma4_text": {"hidden_size": 16, "intermediate_size": 24, "sliding_window": 3},
}


class Letters:
    """A tokenizer of letters, with a beginning-of-sequence token in front if asked."""

    bos_token_id = 1

    def __init__(self, *, bos=True):
        self.bos = bos

    def encode(self, text, verbose=True):
        return [1] * self.bos + [3 + ord(letter) % 50 for letter in text]


@pytest.fixture(scope="module", params=SIZES)
def model(request):
    _, built = TINY[request.param](**SIZES[request.param])
    return replace(built, tokenizer=Letters())


@pytest.fixture(scope="module")
def rows(model):
    return [random_ids(model, length, seed=length + i) for i, length in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def streams(model, rows):
    """The residual stream of each prompt run alone, without padding: inputs (L, T, D), middle, final (T, D)."""
    alone = []
    for row in rows:
        inputs, middle, final = decoder.residual_stream(model.architecture, model.params, jnp.asarray(row[None]))
        alone.append((np.asarray(inputs[:, 0]), np.asarray(middle[:, 0]), np.asarray(final[0])))
    return alone


@pytest.mark.parametrize("rule", ["last", "all", "last:3"])
def test_batched_equals_one_by_one(model, rows, streams, rule):
    acts = capture(model, pad(rows, bos=False), tokens=rule, batch_size=2)
    kept = {"last": 1, "all": 99, "last:3": 3}[rule]
    expected = [(b, t) for b, n in enumerate(LENGTHS) for t in range(max(0, n - kept), n)]
    assert list(zip(acts.prompt.tolist(), acts.position.tolist(), strict=True)) == expected
    assert acts.rule == rule
    assert acts.inputs.shape == acts.middle.shape == (3, len(expected), 16)
    assert acts.final.shape == (len(expected), 16)
    assert acts.inputs.dtype == np.float64
    for i, (b, t) in enumerate(expected):
        assert acts.token[i] == rows[b][t]
        for found, alone in zip((acts.inputs[:, i], acts.middle[:, i], acts.final[i]), streams[b], strict=True):
            wanted = alone[..., t, :]
            assert np.abs(found - wanted).max() < TOLERANCE * np.abs(wanted).max(), (b, t)


def test_padding_changes_nothing(model, rows):
    short = capture(model, pad(rows, bos=False), tokens="last:2")
    long = capture(model, pad(rows, bos=False, length=13), tokens="last:2")
    filled = pad(rows, bos=False, length=13)
    for row, length in zip(filled.token_ids, filled.lengths, strict=True):
        row[length:] = 7
    other = capture(model, filled, tokens="last:2")
    for found in (long, other):
        np.testing.assert_array_equal(found.position, short.position)
        for site in ("inputs", "middle", "final"):
            wanted = np.asarray(getattr(short, site))
            assert np.abs(getattr(found, site) - wanted).max() < TOLERANCE * np.abs(wanted).max()


def test_context_at_recomputes_the_inputs(model, rows):
    """At every layer, from one compilation."""
    acts = capture(model, pad(rows, bos=False), tokens="all")
    ids, lengths = jnp.asarray(acts.prompts.token_ids), jnp.asarray(acts.prompts.lengths)
    compiled = set()
    for layer in range(3):
        found = context_at(model.architecture, model.params, ids, lengths, layer).x[acts.prompt, acts.position]
        wanted = np.asarray(acts.inputs[layer])
        assert np.abs(found - wanted).max() < TOLERANCE * np.abs(wanted).max()
        compiled.add(compilations(context_at))
    assert len(compiled) == 1


@pytest.mark.parametrize(
    ("family", "own"),
    [("llama", {}), ("mistral", {"sliding_window": 70}), ("gemma2", {"sliding_window": 20}), ("gemma4_text", {})],
)
def test_long_prompts_equal_one_by_one(family, own):
    """Prompts longer than the tiles attention is computed in, and of very unequal lengths; windows that skip tiles."""
    _, long = TINY[family](**SIZES["llama"], **own, max_position_embeddings=200)
    rows = [random_ids(long, length, seed=length) for length in (150, 2, 65)]
    acts = capture(long, pad(rows, bos=False), tokens="last:3")
    for b, row in enumerate(rows):
        inputs, middle, _ = decoder.residual_stream(long.architecture, long.params, jnp.asarray(row[None]))
        for found, alone in ((acts.inputs, inputs), (acts.middle, middle)):
            wanted = np.asarray(alone[:, 0, -3:])
            assert np.abs(found[:, acts.prompt == b] - wanted).max() < TOLERANCE * np.abs(wanted).max()


@pytest.mark.parametrize(("family", "own"), [("llama", {}), ("mistral", {"sliding_window": 7}), ("gemma3_text", {})])
def test_fused_attention_is_tiled_attention(family, own):
    """What accelerators run, run here in float32: the same mixed values at every real position."""
    arch = TINY[family](**own)[1].architecture
    rng, lengths = np.random.default_rng(0), jnp.asarray([70, 33])
    q, k, v = (rng.normal(size=(2, 70, heads, arch.head_dim)) for heads in (4, 2, 2))
    q, k, v = (jnp.asarray(part, jnp.float32) for part in (q, k, v))
    for index in range(arch.layers):
        layer = {"index": jnp.asarray(index)}
        fused, tiled = (way(arch, layer, q, k, v, lengths) for way in (attention._fused, attention._tiled))
        for row, length in enumerate(lengths.tolist()):
            # Scores of up to 30, each known to 30 eps; values of up to 4.
            assert np.abs(fused[row, :length] - tiled[row, :length]).max() < 4 * 30 * np.finfo(np.float32).eps


def test_select(model, rows):
    acts = capture(model, pad(rows, bos=False), tokens="last:2")
    chosen = acts.select(np.array([4, 0]))
    assert chosen.position.tolist() == acts.position[[4, 0]].tolist()
    assert chosen.token.tolist() == acts.token[[4, 0]].tolist()
    np.testing.assert_array_equal(chosen.inputs, acts.inputs[:, np.array([4, 0])])
    np.testing.assert_array_equal(chosen.middle, acts.middle[:, np.array([4, 0])])
    np.testing.assert_array_equal(chosen.final, acts.final[np.array([4, 0])])


def test_shapes_only_runs_nothing(model, rows):
    prompts = pad(rows, bos=False)
    real = capture(model, prompts, tokens="last:3")
    broken = replace(
        model, params=jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), model.params)
    )
    shapes = capture(broken, prompts, tokens="last:3", shapes_only=True)
    for site in ("inputs", "middle", "final"):
        declared = getattr(shapes, site)
        assert isinstance(declared, jax.ShapeDtypeStruct)
        assert (declared.shape, declared.dtype) == (getattr(real, site).shape, getattr(real, site).dtype)
    np.testing.assert_array_equal(shapes.position, real.position)


def test_sinks_are_the_first_16_positions():
    prompts = Prompts(np.zeros((1, 20), np.int32), np.array([20]), False)
    sites = jnp.zeros((1, 20, 4))
    acts = activations.Activations(prompts, np.zeros(20, int), np.arange(20), "all", sites, sites, sites[0])
    assert acts.sink.tolist() == [True] * 16 + [False] * 4


def test_massive_coordinates_by_hand():
    """Massive: above 100 and above 1000 times the median size of the state, in any sample of the layer."""
    x = np.ones((3, 2, 8))
    x[0, 1, 3] = -2000.0  # massive, whatever its sign, in one sample of two
    x[0, 0, 5] = 999.0  # large, but below 1000 times the median
    x[1] *= 0.05
    x[1, 0, 2] = 99.0  # 1980 times the median, but below 100
    x[1, 1, 6] = 101.0
    x[2] *= 10.0
    x[2, 0, 0] = 9999.0
    found = massive_coordinates(jnp.asarray(x))
    assert np.argwhere(found).tolist() == [[0, 3], [1, 6]]
    assert np.argwhere(massive_coordinates(jnp.asarray(x), ratio=900.0)).tolist() == [[0, 3], [0, 5], [1, 6], [2, 0]]
    assert np.argwhere(massive_coordinates(jnp.asarray(x), magnitude=98.0)).tolist() == [[0, 3], [1, 2], [1, 6]]


def test_tokenise(model):
    prompts = tokenise(model, ["abc", "a"])
    assert prompts.token_ids.tolist() == [[1, 3 + 97 % 50, 3 + 98 % 50, 3 + 99 % 50], [1, 3 + 97 % 50, 0, 0]]
    assert prompts.lengths.tolist() == [4, 2]
    assert prompts.bos
    assert tokenise(model, "abc").token_ids.tolist() == prompts.token_ids[:1].tolist()
    short = tokenise(model, ["abc", "a"], max_tokens=3)
    assert (short.token_ids.tolist(), short.lengths.tolist()) == (prompts.token_ids[:, :3].tolist(), [3, 2])
    plain = tokenise(replace(model, tokenizer=Letters(bos=False)), ["abc"])
    assert (plain.lengths.tolist(), plain.bos) == ([3], False)
    acts = capture(model, ["abc", "a"], max_tokens=3)
    assert acts.position.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ([], {}, r"^texts: got none"),
        ("", {}, r"^texts\[0\]: got ''; each text must be a string with something in it"),
        (["a", " \n"], {}, r"^texts\[1\]: got ' \\n'"),
        (["a", None], {}, r"^texts\[1\]: got None"),
        (["a", "b" * 64], {}, r"^texts\[1\]: got 65 tokens; allowed at most 64, the model's context; shorten the text"),
        (["a"], {"max_tokens": 0}, r"^max_tokens: got 0; allowed 1 to 64"),
        (["a"], {"max_tokens": 65}, r"^max_tokens: got 65; allowed 1 to 64"),
        (["a"], {"tokens": "first"}, r"^tokens: got 'first'; allowed 'last', 'all' or 'last:N'"),
        (["a"], {"tokens": "last:0"}, r"^tokens: got 'last:0'"),
        (["a"], {"tokens": "last:-1"}, r"^tokens: got 'last:-1'"),
        (["a"], {"tokens": "last:²"}, r"^tokens: got 'last:²'"),
        (["a"], {"batch_size": 0}, r"^batch_size: got 0; allowed 1 or more"),
        (pad([np.array([3, 61])], bos=False), {}, r"^token_ids: got 61, allowed 0 to 60"),
        (pad([np.array([3, -1])], bos=False), {}, r"^token_ids: got -1, allowed 0 to 60"),
        (pad([np.arange(65) % 60], bos=False), {}, r"^token_ids: got 65 tokens, the model's context is 64"),
        (
            pad([np.array([3]), np.array([], int)], bos=False),
            {},
            r"^lengths: got \[1, 0\]; allowed one number a prompt",
        ),
        (pad([np.array([3])], bos=False), {"max_tokens": 1}, r"^max_tokens: got 1 with token ids"),
    ],
)
def test_bad_input(model, texts, options, message):
    with pytest.raises(InputError, match=message) as caught:
        capture(model, texts, **options)
    assert "\n" not in str(caught.value)


def test_token_rules():
    lengths = np.array([3, 1])
    for rule, wanted in {
        "last": [(0, 2), (1, 0)],
        "all": [(0, 0), (0, 1), (0, 2), (1, 0)],
        "last:2": [(0, 1), (0, 2), (1, 0)],
    }.items():
        prompt, position = choose_positions(lengths, rule)
        assert list(zip(prompt.tolist(), position.tolist(), strict=True)) == wanted


def shapes_with(compiled, number):
    """Every distinct array shape in a compiled program that has this number among its sizes."""
    shapes = {tuple(map(int, dims.split(","))) for dims in re.findall(r"\w\d+\[([\d,]+)\]", compiled.as_text())}
    return {shape for shape in shapes if number in shape}


def test_nothing_of_vocabulary_size():
    """Only the embedding table has the vocabulary's size in it; where logits are made, the search finds them."""
    vocab = 997
    _, model = TINY["llama"](**SIZES["llama"], vocab_size=vocab)
    ids, lengths, slots = jnp.zeros((2, 6), jnp.int32), jnp.full(2, 6), jnp.zeros((2, 1), jnp.int32)
    table = {(vocab, 16)}
    stream = activations._stream.lower(model.architecture, model.params, ids, lengths, slots).compile()
    assert shapes_with(stream, vocab) == table
    assert shapes_with(context_at.lower(model.architecture, model.params, ids, lengths, 1).compile(), vocab) == table
    with_logits = decoder.logits.lower(model.architecture, model.params, ids).compile()
    assert shapes_with(with_logits, vocab) > table
