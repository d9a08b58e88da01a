"""Configs to descriptions: what is read, what is refused and how, and that tables and layouts agree."""

import dataclasses
import json

import pytest
from transformers import GPT2Config, LlamaConfig

from jaxdyn.errors import InputError
from jaxdyn.models import LinearScaling, Llama3Scaling, Rope, parameters
from jaxdyn.models.families import FAMILIES
from jaxdyn.models.weights import architecture_of

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


@pytest.mark.parametrize(("own", "defaults"), [(LLAMA, LlamaConfig), (GPT2, GPT2Config)], ids=["llama", "gpt2"])
def test_absent_fields_take_the_defaults_of_transformers(own, defaults):
    sizes = {key: value for key, value in own.items() if key != "model_type"}
    assert architecture_of(own) == architecture_of(defaults(**sizes).to_dict())


@pytest.mark.parametrize(
    "change",
    [{}, {"tie_word_embeddings": True}, {"attention_bias": True}, {"mlp_bias": True}, {"num_key_value_heads": 1}],
    ids=str,
)
@pytest.mark.parametrize("own", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_table_fills_the_layout(own, change):
    arch = architecture_of(own | change)
    assert set(FAMILIES[arch.family].table(arch)) == set(parameters.shapes(arch))


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
    ],
    ids=str,
)
def test_both_spellings_of_rope(config, expected):
    assert architecture_of(LLAMA | config).rope == expected


REFUSED = {
    "no type": ({"model_type": None}, "no model_type, supported families are gpt2, llama"),
    "other family": ({"model_type": "mamba"}, "'mamba', supported families are gpt2, llama"),
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
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}},
        "rope_type\": got 'yarn', allowed one of default, linear, llama3",
    ),
    "rope not object": ({"rope_scaling": "linear"}, "\"rope_scaling\": got 'linear', allowed an object"),
    "rope theta twice": (
        {"rope_theta": 1e5, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        "make them agree",
    ),
    "rope factor": ({"rope_scaling": {"rope_type": "linear"}}, '"factor" is missing'),
    "rope ramp": ({"rope_scaling": {"rope_type": "llama3"} | LLAMA3 | {"high_freq_factor": 1.0}}, "above low_freq"),
    "partial rope": ({"partial_rotary_factor": 0.5}, '"partial_rotary_factor": got 0.5, allowed 1.0'),
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
