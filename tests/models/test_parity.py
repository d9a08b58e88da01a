"""Our decoder against transformers in torch float64: embeddings, the stream after each block, logits."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxdyn.models import decoder
from tests.models.tiny import SETTINGS, TINY, YARN, hf_stream, ours, random_ids, tiny_gpt2, tiny_llama

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.5],
    "long_factor": [2.0, 5.0],
    "partial_rotary_factor": 0.5,
}
SIX = {
    "num_hidden_layers": 6,
    "layer_types": ["sliding_attention", "full_attention"] * 3,
    "num_kv_shared_layers": 3,
    "attention_bias": True,
}
CASES = {
    "llama-mha": (tiny_llama, {"num_key_value_heads": 4}),
    "llama-gqa": (tiny_llama, {"num_key_value_heads": 2}),
    "llama-mqa": (tiny_llama, {"num_key_value_heads": 1}),
    "llama-tied": (tiny_llama, {"tie_word_embeddings": True}),
    "llama-biases": (tiny_llama, {"attention_bias": True, "mlp_bias": True}),
    "llama-head-dim": (tiny_llama, {"head_dim": 12}),
    "llama-gelu-eps": (tiny_llama, {"hidden_act": "gelu", "rms_norm_eps": 0.1}),
    "llama-theta": (tiny_llama, {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    "llama-linear": (tiny_llama, {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}}),
    "llama-llama3": (tiny_llama, {"rope_parameters": LLAMA3}),
    "gpt2": (tiny_gpt2, {}),
    "gpt2-untied": (tiny_gpt2, {"tie_word_embeddings": False}),
    "gpt2-inner-relu": (tiny_gpt2, {"n_inner": 40, "activation_function": "relu"}),
    "gpt2-gelu-eps": (tiny_gpt2, {"activation_function": "gelu", "layer_norm_epsilon": 0.1}),
    "llama-yarn": (tiny_llama, {"rope_parameters": YARN}),
    "llama-yarn-mscale": (tiny_llama, {"rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 0.3}}),
    "mistral-window": (TINY["mistral"], {}),
    "mistral-no-window": (TINY["mistral"], {"sliding_window": None, "head_dim": 6, "num_key_value_heads": 1}),
    "qwen2-late-windows": (TINY["qwen2"], {}),
    "qwen2-no-windows": (TINY["qwen2"], {"use_sliding_window": False, "tie_word_embeddings": True}),
    "qwen3-qk-norm-windows": (TINY["qwen3"], {"attention_bias": True}),
    "smollm3-nope": (TINY["smollm3"], {"attention_bias": True, "mlp_bias": True}),
    "phi3-fused-partial-window": (TINY["phi3"], {}),
    "phi3-longrope": (
        TINY["phi3"],
        {
            "rope_scaling": LONG,
            "original_max_position_embeddings": 64,
            "max_position_embeddings": 256,
            "sliding_window": None,
        },
    ),
    "gpt-neox-parallel": (TINY["gpt_neox"], {}),
    "gpt-neox-sequential": (TINY["gpt_neox"], {"use_parallel_residual": False, "attention_bias": False}),
    "gpt-neox-linear": (
        TINY["gpt_neox"],
        {"rope_scaling": {"rope_type": "linear", "factor": 4.0}, "rotary_pct": 1.0, "tie_word_embeddings": True},
    ),
    "olmo2": (TINY["olmo2"], {"attention_bias": True}),
    "olmo3-windows-yarn": (TINY["olmo3"], {}),
    "gemma2-caps-windows": (TINY["gemma2"], {"attention_bias": True}),
    "gemma2-no-caps": (TINY["gemma2"], {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
    "gemma3-local-global": (TINY["gemma3_text"], {}),
    "gemma4-shared": (TINY["gemma4_text"], {}),
    "gemma4-shared-local-and-global": (TINY["gemma4_text"], SIX),
    "gemma4-no-per-layer": (TINY["gemma4_text"], {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0}),
    "smollm3-nope-windows": (TINY["smollm3"], {"use_sliding_window": True, "sliding_window": 5}),
}
COMPARED = ("embeddings", "residuals", "logits")
TOLERANCE = {"float64": 1e-10, "float32": 2e-5}  # largest difference over the largest value


def our_stream(model, ids):
    inputs, _, final = decoder.residual_stream(model.architecture, model.params, jnp.asarray(ids))
    logits = (
        model.logits(ids) if final.dtype == np.float64 else decoder.unembed(model.architecture, model.params, final)
    )
    return np.asarray(inputs[0]), np.concatenate([inputs[1:], final[None]]), np.asarray(logits)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_stream_and_logits_agree(case, dtype):
    build, overrides = CASES[case]
    hf, model = build(dtype=dtype, **overrides)
    ids = random_ids(model, 2, 64)  # the whole context, hence four times the original length under llama3 scaling
    expected, found = hf_stream(hf, ids), our_stream(model, ids)
    for name, want, got in zip(COMPARED, expected, found, strict=True):
        assert got.dtype == dtype
        assert want.shape == got.shape
        # Scale of each layer apart, so that a large last layer does not hide an error in the first.
        axes = tuple(range(want.ndim - 3, want.ndim))
        error = np.abs(want - got).max(axes) / np.abs(want).max(axes)
        assert error.max() < TOLERANCE[dtype], (name, error)


def with_kinds(arch, change):
    """Return the architecture with every layer's kind changed."""
    return replace(arch, layer_kinds=tuple(change(kind) for kind in arch.kinds))


def without_windows(arch):
    return with_kinds(arch, lambda kind: replace(kind, window=None))


def with_rope(arch, **changes):
    """Return the architecture with every rope changed."""
    changed = with_kinds(arch, lambda kind: replace(kind, rope=kind.rope and replace(kind.rope, **changes)))
    return replace(changed, rope=replace(arch.rope, **changes))


def without_amplitude(arch):
    def plain(kind):
        scaling = kind.rope.scaling
        return (
            kind if scaling is None else replace(kind, rope=replace(kind.rope, scaling=replace(scaling, amplitude=1.0)))
        )

    return with_kinds(arch, plain)


# What a port that forgets one mechanism would compute; the case must see it.
FORGOTTEN = {
    "a window": ("mistral-window", without_windows),
    "windows in later layers": ("qwen2-late-windows", without_windows),
    "a window one too wide": (
        "qwen3-qk-norm-windows",
        lambda arch: with_kinds(arch, lambda kind: replace(kind, window=kind.window and kind.window + 1)),
    ),
    "a norm of query and key heads": ("qwen3-qk-norm-windows", lambda arch: replace(arch, qk_norm=None)),
    "layers without rope": ("smollm3-nope", lambda arch: replace(arch, layer_kinds=())),
    "partial rotary": ("phi3-fused-partial-window", lambda arch: with_rope(arch, fraction=1.0)),
    "long rope": ("phi3-longrope", lambda arch: with_rope(arch, scaling=None)),
    "its amplitude": ("phi3-longrope", without_amplitude),
    "yarn": ("llama-yarn", lambda arch: with_rope(arch, scaling=None)),
    "yarn's amplitude": ("olmo3-windows-yarn", without_amplitude),
    "yarn in full attention alone": (
        "olmo3-windows-yarn",
        lambda arch: with_kinds(arch, lambda kind: replace(kind, rope=arch.rope)),
    ),
    "a parallel residual": ("gpt-neox-parallel", lambda arch: replace(arch, parallel_residual=False)),
    "a sequential residual": ("gpt-neox-sequential", lambda arch: replace(arch, parallel_residual=True)),
    "a norm of the whole projection": ("olmo2", lambda arch: replace(arch, qk_norm=None)),
    "windows of some layers": ("olmo3-windows-yarn", without_windows),
    "soft-capping of attention": ("gemma2-caps-windows", lambda arch: replace(arch, attention_softcap=None)),
    "soft-capping of logits": ("gemma2-caps-windows", lambda arch: replace(arch, logit_softcap=None)),
    "a norm's offset": ("gemma2-caps-windows", lambda arch: replace(arch, norm_offset=0.0)),
    "the scale of embeddings": ("gemma2-caps-windows", lambda arch: replace(arch, embedding_scale=1.0)),
    "the scale of queries": ("gemma2-caps-windows", lambda arch: replace(arch, attention_scale=None)),
    "alternating windows": ("gemma2-caps-windows", without_windows),
    "a local rope": (
        "gemma3-local-global",
        lambda arch: with_kinds(arch, lambda kind: replace(kind, rope=arch.rope)),
    ),
    "proportional rope": ("gemma4-shared", lambda arch: with_rope(arch, scaling=None)),
    "shared keys and values": ("gemma4-shared", lambda arch: replace(arch, kv_sources=())),
    "which layer shares": (
        "gemma4-shared-local-and-global",
        lambda arch: replace(arch, kv_sources=(*arch.kv_sources[:3], 1, 0, 1)),
    ),
    "a norm of values": ("gemma4-shared", lambda arch: replace(arch, v_norm=False)),
    "a layer scale": ("gemma4-shared", lambda arch: replace(arch, layer_scale=False)),
    "per-layer embeddings": ("gemma4-shared", lambda arch: replace(arch, per_layer_width=0)),
    "smaller heads": (
        "gemma4-shared",
        lambda arch: with_kinds(arch, lambda kind: replace(kind, head_dim=arch.head_dim)),
    ),
}


@cache
def checked(case):
    """A case's model, and the logits of the Hugging Face model on tokens of the whole context."""
    build, overrides = CASES[case]
    hf, model = build(**overrides)
    ids = random_ids(model, 1, 64)
    return model, ids, hf_stream(hf, ids)[2]


@pytest.mark.parametrize("name", FORGOTTEN)
def test_each_mechanism_would_be_missed(name):
    case, forget = FORGOTTEN[name]
    model, ids, wanted = checked(case)
    mutant = forget(model.architecture)
    assert mutant != model.architecture
    found = np.asarray(decoder.logits(mutant, model.params, jnp.asarray(ids)))
    assert np.abs(found - wanted).max() / np.abs(wanted).max() > 1e-3


def test_the_comparison_sees_small_errors():
    """Each kind of weight matters: a change of 1e-6 in one of its entries moves the logits beyond the tolerance."""
    hf, model = tiny_llama(attention_bias=True, mlp_bias=True)
    ids = random_ids(model, 1, 24)
    before = hf_stream(hf, ids)[2]
    for name, parameter in hf.named_parameters():
        with torch.no_grad():
            kept = parameter.clone()
            parameter.add_(1e-6 * torch.randn_like(parameter))
            moved = np.abs(hf_stream(hf, ids)[2] - before).max() / np.abs(before).max()
            parameter.copy_(kept)
        # A shift of every key by one vector leaves the softmax as it is, but for the rotation by position.
        assert moved > 1e-9, name


@pytest.mark.parametrize("family", SETTINGS)
def test_the_oracle_is_the_model_of_transformers(family):
    """Taking float64 for float32 changes a model by the rounding of float32 only."""
    patched, _ = TINY[family]()
    kind, config, _ = SETTINGS[family]
    plain = kind(config.from_dict(patched.config.to_dict())).eval()
    plain.config._attn_implementation = "eager"
    plain.load_state_dict({key: value.float() for key, value in patched.state_dict().items()})
    ids = torch.arange(48)[None]
    with torch.no_grad():
        reference = plain(ids).logits.double()
        difference = (patched(ids).logits - reference).abs().max() / reference.abs().max()
    assert 0 < difference < 2e-5


def test_bfloat16_weights_are_stored_as_such_and_computed_in_float32():
    hf, model = tiny_llama(dtype="bfloat16", tie_word_embeddings=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype("bfloat16")}
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.copy_(parameter.bfloat16().double())
    ids = random_ids(model, 2, 32)
    for want, got in zip(hf_stream(hf, ids), our_stream(model, ids), strict=True):
        assert got.dtype == np.float32
        assert np.abs(want - got).max() < 2e-5 * np.abs(want).max()


def test_float32_rope_stays_accurate_far_out():
    """At positions in the tens of thousands: float32 logits still agree, where float32 products p f would not."""
    _, model = tiny_llama(max_position_embeddings=65536)
    _, model32 = tiny_llama(max_position_embeddings=65536, dtype="float32")
    positions = jnp.arange(65000, 65024)
    ids = jnp.asarray(random_ids(model, 24))

    def last(model):
        x = decoder.embed(model.architecture, model.params, ids, positions)
        for index in range(model.architecture.layers):
            x = decoder.block(model.architecture, decoder.layer_weights(model.params, index), x, positions)
        return np.asarray(x)

    want, got = last(model), last(model32)
    assert np.abs(want - got).max() < 2e-5 * np.abs(want).max()


def test_stories260k_cross_entropy(shared):
    """1.3136 nats a token: BOS first, at most 512 tokens, pooled over the tokens of the first 30 stories."""
    import json

    import jaxdyn.models as models

    model = models.load(shared / "models" / "stories260k", dtype="float64")
    assert model.adds_bos
    stories = json.loads((shared / "data" / "tinystories_1000.json").read_text(encoding="utf-8"))[:30]
    total = count = 0
    for start in range(0, 30, 10):
        encoded = [ids[:512] for ids in model.encode(stories[start : start + 10])]
        padded = np.zeros((10, 512), np.int32)
        for row, ids in zip(padded, encoded, strict=True):
            row[: len(ids)] = ids
        scores = jax.nn.log_softmax(model.logits(padded[:, :-1]))
        chosen = np.asarray(jnp.take_along_axis(scores, jnp.asarray(padded[:, 1:, None]), -1))[..., 0]
        for row, ids in zip(chosen, encoded, strict=True):
            total -= row[: len(ids) - 1].sum()
            count += len(ids) - 1
    assert count > 9000
    assert total / count == pytest.approx(1.3136, abs=5e-5)


def test_hash_is_that_of_the_weights():
    """The same twice; another one when any parameter differs in its last entry, whatever its kind."""
    hf, model = tiny_gpt2(n_layer=1)
    assert ours(hf).weights_hash == model.weights_hash
    for name, parameter in hf.named_parameters():
        with torch.no_grad():
            parameter.view(-1)[-1] += 1e-9
            assert ours(hf).weights_hash != model.weights_hash, name
            parameter.view(-1)[-1] -= 1e-9
