"""Stage 3 of 7: activations to Jacobians. The public functions; the two routes are in the neighbouring files."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxdyn.activations import Activations, context_at
from jaxdyn.errors import InputError
from jaxdyn.models import decoder
from jaxdyn.models import stream as streams
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.model import Model
from jaxdyn.models.split import WHOLE, Split
from jaxdyn.models.stream import Stream

from . import autodiff, closed_form
from .request import METHODS, Derivative, Method, Operator, Part, Request, check, check_part


def jacobian(
    model: Model,
    activations: Activations | Float[Array, "S D"] | np.ndarray,
    *,
    layer: int,
    operator: Operator = "in-context",
    part: Part = "block",
    derivative: Derivative = "exact",
    source: int | Int[np.ndarray, " S"] | None = None,
    method: Method = "closed-form",
    chunk: int = 64,
    weights_of: Model | None = None,
) -> Float[Array, "S D D"]:
    r"""Jacobians of one block at the samples' own activations.

    J[i, a, b] = d y_a / d x_b, where x is the residual stream at the block's entry and y after the part; "update" is
    J - I. Both in the residual stream's own units.

    Parameters
    ----------
    model : the model.
    activations : from `capture`; the isolated operator also takes a plain array (S, D) of block inputs, where the block
        reads nothing beside them.
    layer : the block l, 0-based.
    operator : "in-context" (default), "isolated", "ov" or "cross"; see `Request`.
    part : "block", "attention" or "mlp" (sublayers with their skip), "update" (the block less the identity),
        "attention-update", "mlp-update". For "cross" the skip does not reach, so a part and its update are the same.
    derivative : "exact", or "frozen" (norm scale, attention pattern and gate held).
    source : for "cross", the source position s of every sample, or one for all; 0 <= s < t.
    method : "closed-form" (default), a few matrix products; "autodiff", D forward-mode columns, the reference.
    chunk : columns at once, for "autodiff".
    weights_of : take the weights of this one block from another model of the same architecture, while the stream that
        enters it stays that of `model` (null N4); default: its own.

    Returns
    -------
    (S, D, D) in the model's compute dtype (float32, or float64 where the weights are float64). A sample whose
    activations are not finite, or so large that their squared length overflows, has NaN.

    Raises
    ------
    InputError : an unknown layer or name, a source that is not before its target, an array of another width, or of a
        block that reads per-layer embeddings or shared keys and values, a chunk below 1, or weights of another
        architecture.

    Notes
    -----
    Cost a sample: 2 D^2 F + 2 D^3 flops (isolated), 2 D^3 + 2 D^2 K more in context, plus one forward pass of the
    prompts up to the layer. Temporaries: at most D F + 4 D^2 floats a sample, beside one layer's weights.
    Source: methods.md 1.2 and 1.8.
    """
    request = Request(operator, derivative)
    check_part(part, operator)
    check("method", method, METHODS)
    if chunk < 1:
        msg = f"chunk: got {chunk}; allowed 1 or more columns at once"
        raise InputError(msg)
    arch = model.architecture
    layer = check_layer(layer, arch)
    if weights_of is not None and weights_of.architecture != arch:
        msg = (
            f"weights_of: got a {weights_of.architecture.family} model of {weights_of.architecture.layers} blocks and "
            f"width {weights_of.architecture.width}; allowed the architecture of `model`, the same in every field"
        )
        raise InputError(msg)
    weights = decoder.layer_weights((weights_of or model).params, layer)
    if isinstance(activations, Activations):
        _check_width(activations, arch)
        if operator == "isolated":
            contexts = isolated_stream(model, activations, layer)
            prompt, position = _each_alone(len(activations.prompt))
        else:
            rows, prompt = np.unique(activations.prompt, return_inverse=True)
            prompts = activations.prompts
            ids, lengths = jnp.asarray(prompts.token_ids[rows]), jnp.asarray(prompts.lengths[rows])
            contexts = context_at(arch, model.params, ids, lengths, layer)
            prompt, position = jnp.asarray(prompt), jnp.asarray(activations.position)
    else:
        x = _plain(activations, arch, operator, layer, decoder.compute_dtype(model.params))
        contexts = streams.lone(arch, x, None, None, weights)
        prompt, position = _each_alone(x.shape[0])
    sources = _sources(source, operator, np.asarray(position))
    return _parts(arch, request, part, method, chunk, weights, contexts, prompt, position, sources)


def check_layer(layer: int, arch: Architecture) -> int:
    """Refuse a layer the model does not have."""
    if not isinstance(layer, int | np.integer) or not 0 <= layer < arch.layers:
        msg = (
            f"layer: got {layer!r}; allowed 0 to {arch.layers - 1}: the model has {arch.layers} blocks, counted from 0"
        )
        raise InputError(msg)
    return int(layer)


def sample_jacobians(
    arch: Architecture,
    request: Request,
    weights: dict,
    contexts: Stream | Float[Array, "B T D"],
    prompt: Int[Array, " S"],
    position: Int[Array, " S"],
    *,
    source: Int[Array, " S"] | None = None,
    keep: tuple[str, ...] = ("attention", "mlp", "block"),
    method: Method = "closed-form",
    chunk: int = 64,
    batch_size: int | None = None,
    split: Split = WHOLE,
) -> closed_form.BlockJacobian:
    """Jacobians of many samples, to be traced inside a jitted program.

    Parameters
    ----------
    arch, request : static descriptions.
    weights : one layer's weights in the compute dtype.
    contexts : whole prompts at the block's entry; the isolated operator reads the samples' own positions only. The
        block inputs alone, as an array, where blocks read nothing beside them.
    prompt, position, source : row of `contexts`, target and (for "cross") source position of each sample.
    keep : the matrices to return; the others come back as None and take no memory.
    method, chunk : as in `jacobian`.
    batch_size : samples assembled at once; None is one at a time, which is fastest on a CPU.
    split : inside a `jax.shard_map` where `arch` and `weights` are one device's piece of the layer, how the pieces add
        up; the matrices hold this device's columns.
    """
    stream = contexts if isinstance(contexts, Stream) else Stream(contexts)
    beside = streams.beside(arch, weights, stream)
    prepared = jax.vmap(partial(closed_form.make_context, arch, weights))(stream.x, beside)
    once = request.operator == "isolated" and not arch.v_norm
    ov = closed_form.value_output(arch, weights) if once else None

    def one(sample: tuple[Array, Array, Array]) -> closed_form.BlockJacobian:
        b, t, s = sample
        context = jax.tree.map(lambda leaf: leaf[b], prepared)
        s = None if source is None else s
        if method == "autodiff":
            out = autodiff.block_jacobian(arch, weights, context, t, request, source=s, chunk=chunk, split=split)
        else:
            out = closed_form.block_jacobian(arch, weights, context, t, request, source=s, ov=ov, split=split)
        dropped = {name: None for name in ("attention", "mlp", "block") if name not in keep}
        return _nan_unless_finite(replace(out, **dropped), context.x[t if s is None else s])

    return lax.map(one, (prompt, position, position if source is None else source), batch_size=batch_size)


def _nan_unless_finite(out, source_x):
    """Turn a sample to NaN where the squared length of a state it was taken at overflows or is not finite.

    A norm's scale is 0 there, so the assembled matrix would be the identity: a number that looks right.
    """
    size = sum(jnp.sum(jnp.square(state)) for state in (out.x, out.h, source_x))
    hole = jnp.where(jnp.isfinite(size), 0.0, jnp.nan).astype(out.x.dtype)
    return jax.tree.map(lambda leaf: leaf + hole, out)


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _parts(arch, request, part, method, chunk, weights, contexts, prompt, position, source):
    """One part of every sample, (S, D, D)."""
    kind = "block" if part == "update" else part.removesuffix("-update")
    matrices = getattr(
        sample_jacobians(
            arch, request, weights, contexts, prompt, position, source=source, keep=(kind,), method=method, chunk=chunk
        ),
        kind,
    )
    if part.endswith("update") and request.operator != "cross":
        matrices = matrices - jnp.eye(arch.width, dtype=matrices.dtype)
    return matrices


def isolated_stream(model: Model, activations: Activations, layer: int) -> Stream:
    """Make every sample a prompt of one token at a block's entry, with what the block reads beside its input.

    A lone token keeps its own per-layer embedding. Where the block reads another's keys and values, it sees its own
    there: those that the other block makes of the sample's state at its entry. Both are held, so that the attention of
    such a block adds a constant, and its Jacobian is the identity.
    """
    arch, params = model.architecture, model.params
    inputs, donor = None, None
    if arch.per_layer_width:
        ids = jnp.asarray(activations.token)
        inputs = decoder.layer_inputs(arch, params, ids, decoder.embed(arch, params, ids, ids))
    if arch.shares(layer):
        source = arch.kv_sources[layer]
        position = jnp.asarray(activations.position)
        donor = decoder.layer_weights(params, source), activations.inputs[source], position
    return streams.lone(arch, activations.inputs[layer], inputs, donor, decoder.layer_weights(params, layer))


def _each_alone(samples: int) -> tuple[Array, Array]:
    """Prompt and position of samples that are prompts of one token each."""
    return jnp.arange(samples), jnp.zeros(samples, int)


def _plain(array, arch, operator, layer, dtype):
    if operator != "isolated":
        msg = (
            f"activations: got a plain array with operator {operator!r}; only 'isolated' needs no context; "
            "pass what capture(model, texts) returns"
        )
        raise InputError(msg)
    if arch.per_layer_width or arch.shares(layer):
        what = "per-layer embeddings" if arch.per_layer_width else "another block's keys and values"
        msg = f"activations: got a plain array, but block {layer} also reads {what}; pass what capture returns"
        raise InputError(msg)
    array = jnp.asarray(array)
    if array.ndim != 2 or array.shape[1] != arch.width:
        msg = f"activations: got an array of shape {array.shape}; allowed (samples, {arch.width}), the model's width"
        raise InputError(msg)
    return array.astype(dtype)


def _check_width(activations, arch):
    sizes = (activations.inputs.shape[0], activations.inputs.shape[-1])
    if sizes != (arch.layers, arch.width):
        msg = (
            f"activations: got {sizes[0]} blocks of width {sizes[1]}; allowed {arch.layers} of width {arch.width}, "
            "as the model has; capture them with this model"
        )
        raise InputError(msg)


def _sources(source, operator, position):
    if (source is None) != (operator != "cross"):
        msg = (
            f"source: got {source!r} with operator {operator!r}; 'cross' needs a source position for each sample, "
            "the other operators take none"
        )
        raise InputError(msg)
    if source is None:
        return None
    sources = np.asarray(source)
    if not np.issubdtype(sources.dtype, np.integer) or sources.shape not in ((), position.shape):
        msg = (
            f"source: got {sources.dtype} of shape {sources.shape}; allowed one integer, or one for each of the "
            f"{len(position)} samples"
        )
        raise InputError(msg)
    sources = np.broadcast_to(sources, position.shape)
    wrong = (sources < 0) | (sources >= position)
    if np.any(wrong):
        bad = int(np.argmax(wrong))
        allowed = f"allowed 0 to {position[bad] - 1}" if position[bad] else "the first position has none before it"
        msg = f"source: got {sources[bad]} for sample {bad}, whose position is {position[bad]}; {allowed}"
        raise InputError(msg)
    return jnp.asarray(sources)
