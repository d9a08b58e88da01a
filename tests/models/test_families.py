"""Configs to descriptions: what is read, what is refused and how, and that tables and layouts agree."""

import dataclasses
import json
import math

import pytest

from jaxdyn.errors import InputError
from jaxdyn.models import LinearScaling, Llama3Scaling, Rope, parameters
from jaxdyn.models.families import FAMILIES
from jaxdyn.models.rope import LongScaling, ProportionalScaling, YarnScaling
from jaxdyn.models.weights import architecture_of
from tests.models.tiny import SETTINGS, TINY, YARN

LLAMA = {
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
GPT2 = {"model_type": "gpt2", "vocab_size": 61, "n_embd": 32, "n_layer": 3, "n_head": 4}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


OWN = {family: LLAMA | {"model_type": family} for family in SETTINGS} | {"gpt2": GPT2}
OWN["mistral"] |= {"num_attention_heads": 8}  # a multiple of the family's key-value heads
OWN["qwen2"] |= {"hidden_size": 64, "num_attention_heads": 32}
OWN["qwen3"] |= {"num_attention_heads": 32}
SUPPORTED = ", ".join(sorted(FAMILIES))


def test_every_family_has_a_tiny_model():
    assert {FAMILIES[name] for name in SETTINGS} == set(FAMILIES.values())


@pytest.mark.parametrize("family", SETTINGS)
def test_absent_fields_take_the_defaults_of_transformers(family):
    own, (_, defaults, _) = OWN[family], SETTINGS[family]
    sizes = {key: value for key, value in own.items() if key != "model_type"}
    found, wanted = architecture_of(own), architecture_of(defaults(**sizes).to_dict())
    assert found == wanted, [
        (field.name, getattr(found, field.name), getattr(wanted, field.name)) for field in dataclasses.fields(found)
    ]


CHANGES = {
    "mistral": ({"sliding_window": None},),
    "qwen3": ({"attention_bias": True},),
    "smollm3": ({"attention_bias": True, "mlp_bias": True},),
    "gpt_neox": ({"attention_bias": False}, {"use_parallel_residual": False}),
    "olmo2": ({"attention_bias": True},),
    "olmo3": ({"attention_bias": True},),
    "gemma2": ({"attention_bias": True},),
    "gemma3_text": ({"attention_bias": True},),
    "gemma4_text": ({"attention_bias": True}, {"hidden_size_per_layer_input": 0}),
    "llama": ({"attention_bias": True}, {"mlp_bias": True}),
    "gpt2": ({"n_inner": 12},),
}
CHOICES = [(family, change) for family in SETTINGS for change in ({}, *CHANGES.get(family, ()))]


@pytest.mark.parametrize(("family", "change"), CHOICES, ids=str)
def test_table_fills_the_layout(family, change):
    for tied in (False, True):
        arch = architecture_of(OWN[family] | change | {"tie_word_embeddings": tied})
        assert set(FAMILIES[arch.family].table(arch)) == set(parameters.shapes(arch))


@pytest.mark.parametrize(("family", "change"), [choice for choice in CHOICES if choice[1]], ids=str)
def test_every_choice_changes_the_architecture(family, change):
    assert architecture_of(OWN[family] | change) != architecture_of(OWN[family])


@pytest.mark.parametrize("family", SETTINGS)
def test_parameters_are_counted_without_padding(family):
    hf, model = TINY[family]()
    tied = model.architecture.tied_head
    named = {key: value for key, value in hf.state_dict().items() if not (tied and key == "lm_head.weight")}
    assert parameters.count(model.architecture) == sum(value.numel() for value in named.values())


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, Rope(10000.0)),
        ({"rope_theta": 500000.0}, Rope(500000.0)),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, Rope(5e5)),
        ({"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}}, Rope(1e4, LinearScaling(2.0))),
        (
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e5, "factor": 2.0}},
            Rope(1e5, LinearScaling(2.0)),
        ),
        (
            {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3"} | LLAMA3},
            Rope(5e5, Llama3Scaling(8.0, 1.0, 4.0, 8192)),
        ),
        (
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5} | LLAMA3},
            Rope(5e5, Llama3Scaling(8.0, 1.0, 4.0, 8192)),
        ),
        ({"rope_parameters": YARN}, Rope(1e4, YarnScaling(4.0, 4.0, 1.0, 16, 0.1 * math.log(4.0) + 1))),
        (
            {"rope_parameters": YARN | {"attention_factor": 1.25}},
            Rope(1e4, YarnScaling(4.0, 4.0, 1.0, 16, 1.25)),
        ),
    ],
    ids=str,
)
def test_both_spellings_of_rope(config, expected):
    assert architecture_of(LLAMA | config).rope == expected


REFUSED = {
    "no type": ({"model_type": None}, f"no model_type, supported families are {SUPPORTED}"),
    "other family": ({"model_type": "mixtral"}, f"'mixtral', supported families are {SUPPORTED}"),
    "quantised": ({"quantization_config": {"bits": 4}}, "quantised weights are not supported"),
    "size missing": ({"hidden_size": None}, '"hidden_size" is missing'),
    "size text": ({"hidden_size": "32"}, "\"hidden_size\": got '32', allowed an integer of at least 1"),
    "size zero": ({"num_hidden_layers": 0}, '"num_hidden_layers": got 0'),
    "size boolean": ({"vocab_size": True}, '"vocab_size": got True'),
    "heads": ({"num_attention_heads": 5}, '"hidden_size" 32 is not a multiple'),
    "groups": ({"num_key_value_heads": 3}, '"num_key_value_heads" 3 does not divide'),
    "odd head": ({"head_dim": 7}, "head size 7 is odd"),
    "eps": ({"rms_norm_eps": -1e-5}, '"rms_norm_eps": got -1e-05, allowed a finite number above 0'),
    "flag": ({"attention_bias": 1}, '"attention_bias": got 1, allowed true or false'),
    "activation": ({"hidden_act": "mish"}, "\"hidden_act\": got 'mish', allowed one of silu"),
    "rope": (
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
        "rope_type\": got 'dynamic', allowed one of default, linear, llama3, yarn",
    ),
    "rope not object": ({"rope_scaling": "linear"}, "\"rope_scaling\": got 'linear', allowed an object"),
    "rope theta twice": (
        {"rope_theta": 1e5, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        "make them agree",
    ),
    "rope factor": ({"rope_scaling": {"rope_type": "linear"}}, '"factor" is missing'),
    "rope ramp": ({"rope_scaling": {"rope_type": "llama3"} | LLAMA3 | {"high_freq_factor": 1.0}}, "above low_freq"),
    "partial rope": ({"partial_rotary_factor": 0.5}, '"partial_rotary_factor": got 0.5, allowed 1.0'),
    "rope field": (
        {"rope_parameters": YARN | {"mscale_power": 2}},
        '"rope_parameters.mscale_power": got 2, allowed no such field',
    ),
    "rope truncate": ({"rope_parameters": YARN | {"truncate": False}}, '"truncate": got False, allowed true'),
    "unknown field": ({"residual_multiplier": 0.22}, '"residual_multiplier": got 0.22, allowed no such field, or null'),
    "experts": ({"num_local_experts": 8, "num_experts_per_tok": 2}, '"num_local_experts": got 8, allowed no such'),
    "soft-capping": ({"final_logit_softcapping": 30.0}, '"final_logit_softcapping": got 30.0, allowed no such'),
    "window": ({"sliding_window": 5}, '"sliding_window": got 5, allowed no such field'),
    "window zero": (
        OWN["mistral"] | {"sliding_window": 0},
        '"sliding_window": got 0, allowed an integer of at least 1',
    ),
    "window missing": (
        OWN["olmo3"] | {"sliding_window": None},
        '"sliding_window": got None, allowed an integer of at least 1: a layer has sliding attention',
    ),
    "layer type": (
        OWN["olmo3"] | {"layer_types": ["full_attention", "full_attention", "chunked_attention"]},
        "allowed 3 of full_attention, sliding_attention",
    ),
    "layer types short": (OWN["gemma2"] | {"layer_types": ["full_attention"]}, "allowed 3 of full_attention"),
    "windows not asked": (
        OWN["qwen2"] | {"layer_types": ["full_attention", "full_attention", "sliding_attention"]},
        "allowed 3 of full_attention; correct",
    ),
    "no rope": (OWN["smollm3"] | {"no_rope_layers": [1]}, '"no_rope_layers": got [1], allowed a list of at least 3'),
    "phi3 rope": (
        OWN["phi3"] | {"rope_scaling": {"type": "linear", "factor": 2.0}},
        "rope_type\": got 'linear', allowed one of default, longrope",
    ),
    "phi3 factors": (
        OWN["phi3"] | {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}},
        '"short_factor": got 1, allowed 4 numbers, one a pair',
    ),
    "phi3 odd part": (OWN["phi3"] | {"partial_rotary_factor": 0.4}, "allowed a factor that turns an even part"),
    "neox odd part": (OWN["gpt_neox"] | {"rotary_pct": 0.1}, "allowed a factor that turns an even part"),
    "two ropes": (
        OWN["gemma3_text"] | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        "allowed an object for each of full_attention and sliding_attention",
    ),
    "both ways": (OWN["gemma2"] | {"use_bidirectional_attention": True}, "allowed false, the only value supported"),
    "gemma4 experts": (OWN["gemma4_text"] | {"enable_moe_block": True}, '"enable_moe_block": got True, allowed false'),
    "gemma4 one map": (OWN["gemma4_text"] | {"attention_k_eq_v": True}, '"attention_k_eq_v": got True, allowed false'),
    "gemma4 kv heads": (OWN["gemma4_text"] | {"num_global_key_value_heads": 1}, '"num_global_key_value_heads": got 1'),
    "gemma4 layer": (
        OWN["gemma4_text"] | {"per_layer_config": {"2": {"head_dim": 8, "num_key_value_heads": 1}}},
        '"per_layer_config.2.num_key_value_heads": got 1, allowed no such field',
    ),
    "gemma4 shares all": (
        OWN["gemma4_text"] | {"num_kv_shared_layers": 2},
        "none of the first 1 layers has full_attention",
    ),
    "gemma4 table": (
        OWN["gemma4_text"] | {"vocab_size_per_layer_input": 60},
        '"vocab_size_per_layer_input": got 60, allowed at least vocab_size, 61',
    ),
    "inside the text": (
        {"model_type": "gemma3", "text_config": OWN["gemma3_text"] | {"num_experts": 4}},
        '"text_config.num_experts": got 4, allowed no such field',
    ),
    "gpt2 heads": (GPT2 | {"n_head": 5}, '"n_embd" 32 is not a multiple'),
    "gpt2 scale": (GPT2 | {"scale_attn_weights": False}, '"scale_attn_weights": got False, allowed true'),
    "gpt2 layer scale": (GPT2 | {"scale_attn_by_inverse_layer_idx": True}, "allowed false, the only value supported"),
    "gpt2 cross": (GPT2 | {"add_cross_attention": True}, '"add_cross_attention": got True'),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_configs(case):
    change, message = REFUSED[case]
    config = json.loads(json.dumps(LLAMA | change))
    with pytest.raises(InputError) as error:
        architecture_of(config)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_architecture_is_hashable_and_every_field_counts():
    arch = architecture_of(LLAMA)
    assert hash(arch) == hash(architecture_of(dict(LLAMA)))
    for field in dataclasses.fields(arch):
        assert dataclasses.replace(arch, **{field.name: "other"}) != arch


@pytest.mark.parametrize("family", SETTINGS)
def test_no_family_ignores_a_field_in_silence(family):
    """A field that is set and that the family does not know is refused; off, or known to change nothing, it passes."""
    plain = architecture_of(OWN[family])
    for off in (None, False, [], {}):
        assert architecture_of(OWN[family] | {"residual_multiplier": off}) == plain
    assert architecture_of(OWN[family] | {"torch_dtype": "bfloat16", "attention_dropout": 0.1}) == plain
    for value in (0.22, 1, True, "sqrt", [1], {"a": 1}):
        with pytest.raises(InputError, match=r'"residual_multiplier": got .*, allowed no such field, or null'):
            architecture_of(OWN[family] | {"residual_multiplier": value})


def test_what_each_family_says_of_its_layers():
    """The pattern of windows and ropes, read off by hand."""
    local, full = ("sliding_attention", "full_attention")
    tiny = {family: TINY[family]()[1].architecture for family in ("smollm3", "olmo3", "gemma3_text", "gemma4_text")}
    assert [kind.rope is None for kind in tiny["smollm3"].kinds] == [False, True, False]
    assert [kind.window for kind in tiny["olmo3"].kinds] == [5, None, None]
    assert [kind.rope and kind.rope.theta for kind in tiny["gemma3_text"].kinds] == [100.0, 1e6, 1e6]
    gemma4 = tiny["gemma4_text"]
    assert [kind.head_dim for kind in gemma4.kinds] == [6, 12, 12]
    assert [kind.ff_dim for kind in gemma4.kinds] == [48, 48, 96]
    assert (gemma4.kv_sources, gemma4.donors) == ((0, 1, 1), (1,))
    assert gemma4.kinds[1].rope == Rope(1e4, ProportionalScaling(0.5, 1.0))
    e4b = architecture_of(OWN["gemma4_text"] | {"num_hidden_layers": 42, "num_kv_shared_layers": 18})
    assert [layer for layer, kind in enumerate(e4b.kinds) if kind.window is None] == [5, 11, 17, 23, 29, 35, 41]
    assert e4b.donors == (22, 23)
    assert [e4b.kv_sources[layer] for layer in (23, 24, 28, 29, 41)] == [23, 22, 22, 23, 23]
    types = {"layer_types": [local, full] * 2, "num_hidden_layers": 4}
    assert [kind.window for kind in architecture_of(OWN["gemma2"] | types | {"sliding_window": 7}).kinds] == [
        7,
        None,
    ] * 2
    whole = {"model_type": "gemma4", "text_config": OWN["gemma4_text"], "vision_config": {"depth": 3}}
    assert architecture_of(whole) == architecture_of(OWN["gemma4_text"])


def test_long_rope_ends_the_context_where_its_rule_changes():
    long = {"type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0] * 4}
    sizes = {"max_position_embeddings": 4096, "original_max_position_embeddings": 256, "rope_scaling": long}
    arch = architecture_of(OWN["phi3"] | sizes)
    assert arch.context == 256
    assert arch.rope is not None
    assert isinstance(arch.rope.scaling, LongScaling)
    assert arch.rope.amplitude == pytest.approx(math.sqrt(1 + math.log(16) / math.log(256)))
