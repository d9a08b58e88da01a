"""Tiny models, their real residual streams, and the Jacobians of one block by both routes, computed once each."""

from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdyn.activations import context_at
from jaxdyn.jacobians import OPERATORS, Request, sample_jacobians
from jaxdyn.jacobians.request import Derivative, Operator
from jaxdyn.models import Model, decoder
from jaxdyn.models import stream as streams
from tests.models.tiny import TINY, random_ids, tiny_gpt2, tiny_llama

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
# The scaled embeddings are long: an epsilon that can be seen beside them.
GEMMA = SIZES | {"head_dim": 6, "layer_types": ["full_attention", "sliding_attention"], "rms_norm_eps": 1e-3}
GEMMA4 = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
    "num_kv_shared_layers": 2,
    "sliding_window": 3,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
MODELS = {
    "llama-mha": partial(tiny_llama, **SIZES, num_key_value_heads=4),
    "llama-gqa-llama3": partial(tiny_llama, **SIZES, num_key_value_heads=2, head_dim=6, rope_parameters=LLAMA3),
    "llama-mqa-biases": partial(tiny_llama, **SIZES, num_key_value_heads=1, attention_bias=True, mlp_bias=True),
    "gpt2": partial(tiny_gpt2, n_embd=16, n_inner=24, n_layer=2),
    "qwen3": partial(TINY["qwen3"], **SIZES, sliding_window=3, head_dim=6, attention_bias=True),
    "smollm3-nope": partial(TINY["smollm3"], **SIZES),
    "phi3": partial(TINY["phi3"], **SIZES, head_dim=4, sliding_window=3),
    "gpt-neox": partial(TINY["gpt_neox"], **SIZES),
    "olmo3-yarn": partial(TINY["olmo3"], **SIZES, layer_types=["sliding_attention", "full_attention"]),
    "gemma2": partial(TINY["gemma2"], **GEMMA),
    "gemma3-local": partial(TINY["gemma3_text"], **GEMMA, sliding_window=3),
    "gemma4-local": partial(TINY["gemma4_text"], **GEMMA4),
    "gemma4-shared-global": partial(TINY["gemma4_text"], **GEMMA4),
    "gemma4-shared-local": partial(TINY["gemma4_text"], **GEMMA4),
}
"""Models by name; the block that is differentiated is LAYER but for those in LAYERS."""
BOTH: tuple[Derivative, ...] = ("exact", "frozen")
DERIVATIVES: dict[str, tuple[Derivative, ...]] = {
    "llama-mha": ("exact",),
    "llama-gqa-llama3": BOTH,
    "llama-mqa-biases": ("exact",),
    "gpt2": BOTH,
    "smollm3-nope": ("exact",),
    "phi3": ("exact",),
    "gemma3-local": ("exact",),
    "gemma4-shared-global": ("exact",),
}
LAYERS = {"gemma4-shared-local": 2, "gemma4-shared-global": 3}
COMBINATIONS = [
    (name, op, derivative) for name in MODELS for op in OPERATORS for derivative in DERIVATIVES.get(name, BOTH)
]

LAYER = 1
TOKENS = 6

# (prompt, position t, source s < t) of four samples; position 0 sees itself alone and has no source.
PROMPT = np.array([0, 0, 1, 1])
POSITION = {"cross": np.array([5, 1, 3, 2]), "other": np.array([5, 0, 3, 2])}
SOURCE = np.array([0, 0, 2, 1])

PARTS = ("attention", "mlp", "block")


@dataclass(frozen=True)
class Case:
    """A model, its Hugging Face twin, one layer's number and weights, and two real prompts at its entry."""

    hf: Any
    model: Model
    layer: int
    ids: np.ndarray
    weights: dict
    stream: streams.Stream

    @property
    def x(self) -> jax.Array:
        """The block inputs (B, T, D)."""
        return self.stream.x

    @property
    def beside(self) -> streams.Beside:
        """What the block reads beside them, prompts in front."""
        return streams.beside(self.arch, self.weights, self.stream)

    @property
    def arch(self):
        return self.model.architecture


@cache
def case(name: str) -> Case:
    hf, model = MODELS[name]()
    ids, layer = random_ids(model, 2, TOKENS, seed=3), LAYERS.get(name, LAYER)
    stream = context_at(model.architecture, model.params, jnp.asarray(ids), jnp.full(2, TOKENS), layer)
    return Case(hf, model, layer, ids, decoder.layer_weights(model.params, layer), stream)


@cache
def sequence_jacobians(name: str, derivative: Derivative = "exact") -> tuple[np.ndarray, np.ndarray]:
    """d h[b,t] / d x[b,s] and d y[b,t] / d x[b,s], (B, T, D, T, D): the whole decoder block differentiated at once."""
    c = case(name)
    positions = jnp.arange(TOKENS)

    def both(x, beside):
        h = decoder.attention_sublayer(c.arch, c.weights, x, positions, derivative=derivative, beside=beside)
        options = {"derivative": derivative, "layer_input": beside.layer_input}
        return h, decoder.finish_block(c.arch, c.weights, x, h, **options)

    h, y = jax.jit(jax.vmap(jax.jacfwd(both)))(c.x, c.beside)
    return np.asarray(h), np.asarray(y)


@cache
def routes(name: str, operator: Operator, derivative: Derivative) -> dict[str, Any]:
    """All parts at the four samples, by both routes, under one jit."""
    c = case(name)
    request = Request(operator, derivative)

    @jax.jit
    def both(weights, stream):
        source = jnp.asarray(SOURCE) if operator == "cross" else None
        take = partial(
            sample_jacobians, c.arch, request, weights, stream, jnp.asarray(PROMPT), jnp.asarray(position_of(operator))
        )
        return {method: take(source=source, method=method) for method in ("closed-form", "autodiff")}

    return jax.tree.map(np.asarray, both(c.weights, c.stream))


def position_of(operator: str) -> np.ndarray:
    return POSITION.get(operator, POSITION["other"])


def with_norm_eps(c: Case, eps: float) -> Case:
    arch = replace(c.arch, norm_eps=eps)
    return replace(c, model=replace(c.model, architecture=arch))


def compilations(jitted: Any) -> int:
    """Count the programs a jitted function holds."""
    return jitted._cache_size()


def relative(found: Any, wanted: Any) -> float:
    """Largest difference over the largest wanted value; inf where a shape differs or something is not a number.

    Where zeros are wanted, as beyond a window, only zeros will do.
    """
    found, wanted = np.asarray(found), np.asarray(wanted)
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return float("inf")
    if not wanted.any():
        return float("inf") if found.any() else 0.0
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())
