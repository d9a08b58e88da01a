"""Jacobians of one Llama block, d = 768, d_ff = 2048, 12 heads, float32, against torch.func.jacrev and jax.jacfwd."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxdyn_kernels import cores
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from benchmarks import peer_torch
from benchmarks.harness import Candidate, Row, Timings, best_of, compiled
from jaxdyn.jacobians import Request, sample_jacobians
from jaxdyn.jacobians.autodiff import columns
from jaxdyn.jacobians.request import Operator
from jaxdyn.models import decoder
from jaxdyn.models.weights import architecture_of, assemble

WIDTH, FF, HEADS = 768, 2048, 12
SAMPLES, TOKENS = 4, 128
ISOLATED, IN_CONTEXT = "closed form, isolated", f"closed form, in-context, {TOKENS} tokens"
JACREV, JACREV_CONTEXT = "torch.func.jacrev, isolated", f"torch.func.jacrev, in-context, {TOKENS} tokens"
JACFWD, PRODUCT = "jax.jacfwd, isolated", "plain d x d_ff x d product"


def run(options: Any) -> Iterator[Row]:
    """Time every candidate in turn and yield times, with errors against float64, and ratios with their targets."""
    torch.set_num_threads(cores())
    hf = _hf_model()
    arch, params = _ours(hf)
    x = np.random.default_rng(0).standard_normal((SAMPLES, TOKENS, WIDTH)).astype(np.float32)
    weights = decoder.layer_weights(params, 0)
    down, up = weights["mlp"]["down"], weights["mlp"]["up"]
    candidates = [
        compiled(ISOLATED, partial(_closed_form, arch, "isolated"), weights, jnp.asarray(x[:, -1:])),
        compiled(IN_CONTEXT, partial(_closed_form, arch, "in-context"), weights, jnp.asarray(x)),
        _torch(hf, x),
        _torch_in_context(hf, x),
        _jacfwd(arch, weights, jnp.asarray(x[:, -1])),
        compiled(PRODUCT, partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST), down, up),
    ]
    timings = Timings(candidates, repeats=options.repeats)
    compared: dict[Operator, tuple[str, ...]] = {
        "isolated": (ISOLATED, JACREV, JACFWD),
        "in-context": (IN_CONTEXT, JACREV_CONTEXT),
    }
    for operator, names in compared.items():
        wanted = _reference(arch, params, x, operator)
        for name in names:
            yield timings.row("jacobian", name, per=SAMPLES, error=_error(timings.results[name], wanted))
    yield timings.row("jacobian", PRODUCT)

    ratio = timings.ratio
    yield Row("jacobian", "torch.func.jacrev / closed form, isolated", ratio(JACREV, ISOLATED), "x", target=">= 3")
    yield Row("jacobian", "torch.func.jacrev / closed form, in-context", ratio(JACREV_CONTEXT, IN_CONTEXT), "x")
    yield Row("jacobian", "jax.jacfwd / closed form, isolated", ratio(JACFWD, ISOLATED), "x", target=">= 2")
    flops = (2 * WIDTH**2 * FF + 2 * WIDTH**3) / (2 * WIDTH**2 * FF)  # of one Jacobian over those of the product
    share = flops * SAMPLES * ratio(PRODUCT, ISOLATED)
    yield Row("jacobian", "rate over that of a plain product", share, "share", target=">= 0.8")
    yield Row("jacobian", "in-context / isolated", ratio(IN_CONTEXT, ISOLATED), "x", target="<= 1.6")


def _hf_model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=WIDTH,
        intermediate_size=FF,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        max_position_embeddings=2 * TOKENS,
    )
    return peer_torch.use_held_attention(LlamaForCausalLM(config))


def _ours(hf: Any) -> tuple[Any, dict]:
    tensors = {key: tensor.numpy() for key, tensor in hf.state_dict().items()}
    arch = architecture_of(hf.config.to_dict())
    params, _ = assemble(arch, {key: tensor.shape for key, tensor in tensors.items()}, tensors.__getitem__)
    return arch, params


def _closed_form(arch, operator, weights, contexts):
    rows, tokens = contexts.shape[:2]
    last = jnp.full(rows, tokens - 1)
    return sample_jacobians(arch, Request(operator), weights, contexts, jnp.arange(rows), last, keep=("block",)).block


def _torch(hf: Any, x: np.ndarray) -> Candidate:
    ways = peer_torch.settings(peer_torch.isolated(hf.model, 0), torch.tensor(x[:, -1]))
    return best_of(JACREV, [Candidate(name, call) for name, call in ways.items()])


def _torch_in_context(hf: Any, x: np.ndarray) -> Candidate:
    base, states = hf.model, torch.tensor(x)
    attention, normed = base.layers[0].self_attn, base.layers[0].input_layernorm(states)
    keys, values = (
        project(normed).unflatten(-1, (HEADS, -1)).transpose(1, 2) for project in (attention.k_proj, attention.v_proj)
    )
    turn = base.rotary_emb(states, position_ids=torch.arange(TOKENS)[None])
    keys, _ = apply_rotary_pos_emb(keys, keys, *turn)
    seen = peer_torch.see(base, states, keys, values, torch.full((SAMPLES,), TOKENS))
    ways = peer_torch.settings(peer_torch.in_context(base, 0, seen), seen.x)
    return best_of(JACREV_CONTEXT, [Candidate(name, call) for name, call in ways.items()])


def _jacfwd(arch: Any, weights: dict, x: jax.Array) -> Candidate:
    def block(weights, z):
        return decoder.block(arch, weights, z[None], jnp.zeros(1, int))[0]

    def all_columns(weights, x):
        return jax.vmap(lambda z: jax.jacfwd(partial(block, weights))(z))(x)

    def one_sample(weights, x):
        return jax.lax.map(lambda z: jax.jacfwd(partial(block, weights))(z), x)

    def chunked(weights, x):
        return jax.lax.map(lambda z: columns(partial(block, weights), z, 128), x)

    ways = {"all samples, all columns": all_columns, "one sample, all columns": one_sample, "128 columns": chunked}
    return best_of(JACFWD, [compiled(name, way, weights, x) for name, way in ways.items()])


def _reference(arch: Any, params: dict, x: np.ndarray, operator: Operator) -> np.ndarray:
    """Forward mode in float64, of the first sample."""
    with jax.enable_x64(True):
        states = jnp.asarray(x[:1] if operator == "in-context" else x[:1, -1:], jnp.float64)
        weights = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), decoder.layer_weights(params, 0))
        last = jnp.asarray([states.shape[1] - 1])
        take = partial(sample_jacobians, arch, Request(operator), keep=("block",), method="autodiff")
        return np.asarray(jax.jit(take)(weights, states, jnp.zeros(1, int), last).block[0])


def _error(found: Any, wanted: np.ndarray) -> float:
    return float(np.abs(np.asarray(found[0], np.float64) - wanted).max() / np.abs(wanted).max())
