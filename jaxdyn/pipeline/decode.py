"""Leading directions of an averaged block, read through the unembedding as tokens."""

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import lax
from jaxtyping import Array, Float, Int

from jaxdyn import spectra
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.model import Model

DIRECTIONS, TOKENS = 4, 8
KINDS = ("output", "input", "eigenvector")
"""Left and right singular vectors of the update J - I, and right eigenvectors of J by abs(lambda)."""


def token_scores(arch: Architecture, params: dict, directions: Float[Array, "k D"]) -> Float[Array, "k V"]:
    """Logits that a direction of the residual stream adds, up to the final norm's scale and a cap: W_U diag(gamma) x.

    Parameters
    ----------
    arch, params : the model.
    directions : (k, D), residual-stream directions; a LayerNorm model's are centred first, as its norm does.

    Returns
    -------
    (k, V), in logits per unit of direction over the norm's scale.
    """
    if arch.norm == "layer":
        directions = directions - jnp.mean(directions, axis=-1, keepdims=True)
    head = params["embed"]["tokens"] if arch.tied_head else params["head"]
    scaled = directions * (arch.norm_offset + params["final_norm"]["scale"].astype(directions.dtype))
    return jnp.matmul(scaled, head.astype(directions.dtype).T, precision=lax.Precision.HIGHEST)


def decoded_directions(model: Model, block: Float[Array, "D D"]) -> xr.Dataset:
    """Decode the leading directions of one averaged block Jacobian.

    Returns
    -------
    Dataset over (kind, direction, sign, rank): `tokens`, the tokens a direction raises most with its sign (+ first) and
    the one opposite; `size` (kind, direction), the singular value of J - I or abs(lambda) of J. A complex eigenvector
    is turned to the phase in which its real part is largest. Without a tokenizer the tokens are ids.
    """
    left, values, right_h = (np.asarray(x) for x in jnp.linalg.svd(block - np.eye(len(block), dtype=block.dtype)))
    spectrum = spectra.decompose(block, vectors=True)
    assert spectrum.right is not None
    order = np.argsort(-np.abs(np.asarray(spectrum.eigenvalues)), kind="stable")[: 2 * DIRECTIONS]
    eigenvalues, vectors = np.asarray(spectrum.eigenvalues)[order], np.asarray(spectrum.right)[:, order].T
    upper = np.flatnonzero(np.imag(eigenvalues) >= 0)[:DIRECTIONS]
    upper = np.resize(upper, DIRECTIONS) if len(upper) else np.arange(DIRECTIONS)
    phase = np.sqrt(np.sum(vectors**2, axis=-1, keepdims=True))
    with np.errstate(invalid="ignore"):  # NaN of a block that failed stays NaN
        turned = (vectors * np.conj(phase / np.where(phase == 0, 1, np.abs(phase)))).real
    directions = np.stack([left[:, :DIRECTIONS].T, right_h[:DIRECTIONS], turned[upper]])
    sizes = np.stack([values[:DIRECTIONS], values[:DIRECTIONS], np.abs(eigenvalues[upper])])

    # From the host, so that they go where the parameters are: these may be split over a mesh.
    flat = jnp.asarray(directions.reshape(-1, block.shape[-1]))
    scores = token_scores(model.architecture, dict(model.params), flat)
    scores = np.asarray(scores).reshape(len(KINDS), -1, scores.shape[-1])
    signed = np.stack([scores, -scores], axis=2)
    ids = np.argsort(-signed, axis=-1)[..., :TOKENS]
    tokens = token_texts(model, ids)
    return xr.Dataset(
        {
            "tokens": (("kind", "direction", "sign", "token_rank"), tokens),
            "size": (
                ("kind", "direction"),
                sizes,
                {"long_name": "singular value of J - I, or abs(lambda)"},
            ),
        },
        {"kind": list(KINDS), "sign": ["+", "-"]},
    )


def token_texts(model: Model, ids: Int[np.ndarray, "..."]) -> np.ndarray:
    """Decode each token by itself, in an array of objects of the same shape; the id where there is no tokenizer."""
    used, where = np.unique(ids, return_inverse=True)
    tokenizer = model.tokenizer
    texts = [str(token) if tokenizer is None else tokenizer.decode([int(token)]) for token in used]
    return np.array(texts, dtype=object)[where].reshape(np.shape(ids))
