"""Structured test matrices: one function a class, all of order n, from a seeded generator.

`matrix` gives a class in any dtype; for a complex one the random classes draw an imaginary part too, and the
deterministic ones turn by a phase, which keeps their structure.
"""

from collections.abc import Callable

import numpy as np
import scipy.linalg

Builder = Callable[[int, np.random.Generator], np.ndarray]


def ginibre(n, rng):
    """Independent Gaussian entries of variance 1/n: spectral radius near one, all eigenvalues simple."""
    return rng.standard_normal((n, n)) / np.sqrt(max(n, 1))


def graded(n, rng):
    """Entries that fall over twelve decades from the upper left to the lower right corner."""
    levels = 10.0 ** (-6.0 * np.arange(n) / max(n - 1, 1))
    return levels[:, None] * rng.standard_normal((n, n)) * levels


def grcar(n, rng):
    """Toeplitz, -1 below the diagonal, ones on it and three above: sensitive eigenvalues, none of them real."""
    del rng
    return np.triu(np.tri(n, n, 3), 0) - np.eye(n, k=-1)


def kahan(n, rng):
    """Upper triangular with a smallest singular value far below its diagonal: sines on it, -cosine above."""
    del rng
    angle = 1.2
    upper = np.eye(n) - np.cos(angle) * np.triu(np.ones((n, n)), 1)
    return np.sin(angle) ** np.arange(n)[:, None] * upper


def frank(n, rng):
    """Upper Hessenberg with integers: its small eigenvalues are very sensitive."""
    del rng
    i, j = np.indices((n, n))
    return np.where(i <= j + 1, n - np.maximum(i, j), 0).astype(float)


def companion(n, rng):
    """Companion matrix of a monic polynomial with Gaussian coefficients."""
    matrix = np.eye(n, k=-1)
    matrix[:1] = -rng.standard_normal((min(n, 1), n))
    return matrix


def jordan(n, rng):
    """One Jordan block with a perturbation of 1e-10 in its corner: n eigenvalues on a small circle around 1/2."""
    del rng
    matrix = 0.5 * np.eye(n) + np.eye(n, k=1)
    matrix[n - 1 :, :1] += 1e-10
    return matrix


def orthogonal(n, rng):
    """Haar orthogonal: normal, all eigenvalues of modulus one."""
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    return q * np.sign(np.diagonal(r))


def skew(n, rng):
    """Antisymmetric: normal, imaginary eigenvalues."""
    g = rng.standard_normal((n, n))
    return g - g.T


def symmetric(n, rng):
    """Symmetric: normal, real eigenvalues."""
    g = rng.standard_normal((n, n))
    return g + g.T


def defective(n, rng):
    """Jordan blocks of order up to four for the eigenvalues 1 and -1, in a random orthogonal basis."""
    matrix = np.zeros((n, n))
    for at in range(0, n, 4):
        size = min(4, n - at)
        matrix[at : at + size, at : at + size] = (-1) ** (at // 4) * np.eye(size) + np.eye(size, k=1)
    q = orthogonal(n, rng)
    return q @ matrix @ q.T


def clustered(n, rng):
    """Identity plus rank eight: the eigenvalue 1 is (n - 8)-fold."""
    rank = min(n, 8)
    return np.eye(n) + rng.standard_normal((n, rank)) @ rng.standard_normal((rank, n)) / max(n, 1)


def repeated(n, rng):
    """The same block of order up to four along the diagonal, in a random orthogonal basis."""
    block = rng.standard_normal((4, 4))
    q = orthogonal(n, rng)
    return q @ np.kron(np.eye(-(-n // 4)), block)[:n, :n] @ q.T


def triangular(n, rng):
    """Already upper triangular."""
    return np.triu(rng.standard_normal((n, n)))


def zero(n, rng):
    """All entries zero."""
    del rng
    return np.zeros((n, n))


def identity(n, rng):
    """The identity."""
    del rng
    return np.eye(n)


def permutation(n, rng):
    """One cycle through all coordinates: the n-th roots of unity, on which unshifted QR stands still."""
    del rng
    return np.roll(np.eye(n), 1, axis=0)


def stacked_scales(n, rng):
    """Diagonal blocks whose sizes differ by 1e8, coupled weakly: clusters of very different modulus."""
    matrix = rng.standard_normal((n, n))
    half = n // 2
    matrix[:half, :half] *= 1e4
    matrix[half:, half:] *= 1e-4
    return matrix


CLASSES: dict[str, Builder] = {
    function.__name__: function
    for function in (
        ginibre,
        graded,
        grcar,
        kahan,
        frank,
        companion,
        jordan,
        orthogonal,
        skew,
        symmetric,
        defective,
        clustered,
        repeated,
        triangular,
        zero,
        identity,
        permutation,
        stacked_scales,
    )
}

# Classes whose eigenvalues LAPACK itself gives only to a root of eps: compared by residuals, not by value.
SENSITIVE = ("grcar", "kahan", "frank", "jordan", "defective", "repeated", "clustered", "identity", "zero")


def matrix(name: str, n: int, dtype, seed: int = 0) -> np.ndarray:
    """The class `name` of order n in `dtype`; the same seed gives the same matrix."""
    rng = np.random.default_rng([seed, n, *name.encode()])
    real = CLASSES[name](n, rng)
    if not np.issubdtype(dtype, np.complexfloating):
        return real.astype(dtype)
    again = CLASSES[name](n, rng)
    return (real * np.exp(0.7j) if np.array_equal(real, again) else real + 1j * again).astype(dtype)


def with_spectrum(values: np.ndarray, rng: np.random.Generator, strength: float = 0.3) -> np.ndarray:
    """Real matrix with the given spectrum (conjugate pairs beside each other) and random non-normality."""
    blocks = []
    skip = False
    for value in values:
        if skip:
            skip = False
        elif value.imag == 0:
            blocks.append([[value.real]])
        else:
            blocks.append([[value.real, value.imag], [-value.imag, value.real]])
            skip = True
    core = scipy.linalg.block_diag(*blocks)
    n = len(values)
    upper = np.triu(rng.standard_normal((n, n)), 2) * strength / np.sqrt(n)
    q = orthogonal(n, rng)
    return q @ (core + upper) @ q.T
