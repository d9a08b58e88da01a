"""Signed Pearson correlation of the residual coordinates in one pass, and what sampling noise does to it (T2).

Chunks of samples are cut again into blocks of a fixed size, each block is centred by its own mean, and blocks are
merged in the order of the samples (Chan, Golub and LeVeque 1979): a mean far larger than the spread costs no digits,
and the bits do not depend on how the caller chunked. Everything is accumulated in float64.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from jaxdyn.errors import InputError

BLOCK = 256
"""Samples centred and multiplied at once; part of the definition of the bits."""

SHRINKAGES = ("none", "linear", "clip")


@dataclass(frozen=True)
class Moments:
    """First and second moments of N samples.

    Attributes
    ----------
    count : N.
    mean : (D,), float64.
    comoment : (D, D), float64, sum over samples of (x - mean)(x - mean)^T.
    """

    count: int
    mean: Float[np.ndarray, " D"]
    comoment: Float[np.ndarray, "D D"]

    @property
    def variance(self) -> Float[np.ndarray, " D"]:
        """Sample variance of each coordinate, with N - 1."""
        return np.diag(self.comoment) / max(1, self.count - 1)

    @property
    def constant(self) -> np.ndarray:
        """Which coordinates do not vary beyond the rounding of their mean, (D,)."""
        rounding = 16 * np.finfo(np.float64).eps * np.abs(self.mean)
        return np.diag(self.comoment) <= self.count * rounding**2

    @property
    def ratio(self) -> float:
        """Ratio q = D / N, with N the degrees of freedom, samples less one."""
        return len(self.mean) / max(1, self.count - 1)

    def rotated(self, basis: Float[np.ndarray, "D D"]) -> "Moments":
        """Moments of the states in another orthogonal basis, y = R^T x; exact, no state is needed again."""
        return Moments(self.count, basis.T @ self.mean, basis.T @ self.comoment @ basis)


def moments(chunks: Float[np.ndarray, "N D"] | Iterable[Float[np.ndarray, "n D"]]) -> Moments:
    """Take the moments of an array, or of an iterable of chunks, in one pass.

    Parameters
    ----------
    chunks : (N, D), or chunks of it, any float dtype.

    Returns
    -------
    Moments, the same bits for every way of chunking.

    Raises
    ------
    InputError : fewer than 3 samples, chunks of different widths, values that are not finite.

    Notes
    -----
    Cost: N D^2 multiplications and 3 D^2 float64 numbers (400 MB at D = 4096).
    """
    count, mean, comoment = 0, np.zeros(0), np.zeros((0, 0))
    for block in _blocks(chunks):
        size, middle = len(block), block.mean(axis=0)
        centred = block - middle
        if not count:
            count, mean, comoment = size, middle, centred.T @ centred
            continue
        delta, total = middle - mean, count + size
        comoment += centred.T @ centred
        comoment += np.outer(delta * (count * size / total), delta)
        mean = mean + delta * (size / total)
        count = total
    if count < 3:
        msg = f"states: got {count} samples; allowed 3 or more, and far more than that to say anything"
        raise InputError(msg, page="docs/topology.md")
    return Moments(count, mean, comoment)


def correlation(found: Moments) -> Float[np.ndarray, "D D"]:
    """Pearson correlation, r_ij = M_ij / sqrt(M_ii M_jj); 0 with a coordinate that does not vary, 1 on the diagonal."""
    size = np.sqrt(np.diag(found.comoment))
    scale = np.divide(1.0, size, out=np.zeros_like(size), where=~found.constant)
    r = np.clip(found.comoment * scale[:, None] * scale, -1.0, 1.0)
    np.fill_diagonal(r, 1.0)
    return r


def shrink(r: Float[np.ndarray, "D D"], count: int, method: str) -> tuple[Float[np.ndarray, "D D"], float]:
    """Take sampling noise out of a correlation matrix.

    Parameters
    ----------
    r : correlation of N samples.
    count : N.
    method : "none"; "linear", (1 - a) r + a I with the intensity of `oas_intensity`: every correlation becomes smaller
        by one factor, so that the top-k graph, its communities and all boundary measures stay as they are; "clip", the
        eigenvalues below the Marchenko-Pastur edge replaced by their mean and the diagonal made 1 again (Laloux,
        Cizeau, Potters and Bouchaud 2000), which does change which correlations are largest.

    Returns
    -------
    The estimate, and the intensity a (of "clip": the share of the eigenvalues that was replaced).

    Notes
    -----
    "clip" costs a symmetric eigendecomposition, 9 D^3 flops.
    """
    if method == "none":
        return r, 0.0
    if method == "linear":
        intensity = oas_intensity(r, count)
        shrunk = (1 - intensity) * r
        np.fill_diagonal(shrunk, 1.0)
        return shrunk, intensity
    if method == "clip":
        values, vectors = np.linalg.eigh(r)
        noise = values <= marchenko_pastur_edge(len(r) / (count - 1))
        values[noise] = values[noise].mean() if noise.any() else 0.0
        clipped = (vectors * values) @ vectors.T
        size = np.sqrt(np.diag(clipped))
        clipped = np.clip(clipped / size[:, None] / size, -1.0, 1.0)
        np.fill_diagonal(clipped, 1.0)
        return clipped, float(noise.mean())
    msg = f"shrinkage: got {method!r}; allowed {', '.join(map(repr, SHRINKAGES))}"
    raise InputError(msg, page="docs/topology.md")


def oas_intensity(r: Float[np.ndarray, "D D"], count: int) -> float:
    """Oracle-approximating intensity of shrinkage towards the identity, from the matrix alone.

    a = ((1 - 2/D) tr r^2 + D^2) / ((n + 1 - 2/D) (tr r^2 - D)),  n = N - 1

    Parameters
    ----------
    r : correlation of N samples (tr r = D).
    count : N.

    Returns
    -------
    0 to 1. Of the kind of Ledoit and Wolf (2004), whose own estimator needs fourth moments of the standardised data
    and so a second pass; this one is better for Gaussian data with few samples (Chen, Wiesel, Eldar and Hero 2010).
    """
    width = len(r)
    energy = float(np.sum(r**2))
    spread = energy - width
    if spread <= 0:
        return 1.0
    return float(min(1.0, ((1 - 2 / width) * energy + width**2) / ((count - 2 / width) * spread)))


def marchenko_pastur_edge(ratio: float) -> float:
    """Upper edge (1 + sqrt q)^2 of the eigenvalues of a correlation matrix of pure noise, q = D / N."""
    return (1 + ratio**0.5) ** 2


def _blocks(chunks: np.ndarray | Iterable[np.ndarray]) -> Iterator[Float[np.ndarray, "n D"]]:
    """Cut chunks again into float64 blocks of `BLOCK` samples; the last one may be short."""
    chunks = [chunks] if isinstance(chunks, np.ndarray) else chunks
    waiting: list[np.ndarray] = []
    held, width = 0, None
    for number, given in enumerate(chunks):
        chunk = np.asarray(given, np.float64)
        width = chunk.shape[-1] if width is None else width
        if chunk.ndim != 2 or chunk.shape[1] != width:
            msg = f"states: chunk {number} has shape {chunk.shape}; allowed (samples, {width}), the same width in all"
            raise InputError(msg, page="docs/topology.md")
        if not np.isfinite(chunk).all():
            msg = f"states: chunk {number} holds NaN or infinity; leave samples out whose activations are not finite"
            raise InputError(msg, page="docs/topology.md")
        waiting.append(chunk)
        held += len(chunk)
        if held < BLOCK:
            continue
        joined = np.concatenate(waiting)
        whole = held - held % BLOCK
        for start in range(0, whole, BLOCK):
            yield joined[start : start + BLOCK]
        waiting, held = [joined[whole:]], held - whole
    if held:
        yield np.concatenate(waiting)
