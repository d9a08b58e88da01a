"""Resolvent norms by inverse Lanczos, for all points of a grid at once.

Golub-Kahan-Lanczos bidiagonalisation of R = (z I - T)^-1 from one random vector gives a small bidiagonal matrix whose
largest singular value grows to that of R. Applying R and R^H are triangular solves; the points share T, so that the
solves for all of them are one product of matrices a block of rows and a short recurrence inside the block. The largest
singular value comes from bisection on the Golub-Kahan tridiagonal matrix (Sturm counts), again for all points at once.
No vector is kept but the last two: lost orthogonality only repeats values that have converged (Paige).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Int

from ..product import matmul
from ..scaling import power_of_two_above

_ROWS = 32
_STEPS_A_ROUND = 4
_ROUNDS = 10


def resolvent_norm(
    T: Complex[Array, "n n"], z: Complex[Array, " m"], tolerance: Float[Array, ""]
) -> Float[Array, " m"]:
    """Norms of (z I - T)^-1 for one triangular matrix with entries of order one; see api.py.

    Rounds of four steps, ten at most. Where singular values crowd at the end that is sought the error after k steps is
    about c / k^2, so that a round's growth, about 8 c / k^3, is k / 8 times smaller than what is missing: the rounds
    end when no value grew by more than half of 8 / k of `tolerance`. Not finite where the norm overflows.
    """
    return _lanczos(T, z, tolerance)[0]


def depth(T: Complex[Array, "n n"], z: Complex[Array, " m"], tolerance: Float[Array, ""]) -> Int[Array, ""]:
    """Count the Lanczos steps that this takes: two triangular solves each, of n dependent rows."""
    return _lanczos(T, z, tolerance)[1]


def _lanczos(T: Complex[Array, "n n"], z: Complex[Array, " m"], tolerance: Float[Array, ""]):
    """Norms, and the number of steps."""
    # (z I - T)^H is lower triangular; with rows and columns reversed it is upper triangular again.
    reversed_ = jnp.conj(T[::-1, ::-1].T)

    def inverse(x):
        return _solve(T, z, x)

    def adjoint_inverse(x):
        return _solve(reversed_, jnp.conj(z), x[::-1])[::-1]

    shape = (T.shape[-1], z.shape[0])
    parts = jax.random.normal(jax.random.key(0), (2, shape[0], 1), T.real.dtype)
    u, _ = _normalised(jnp.broadcast_to(jax.lax.complex(parts[0], parts[1]), shape))
    # Off-diagonal of the Golub-Kahan matrix, alpha_1, beta_2, alpha_2, ...: two rows a step.
    entries = jnp.zeros((2 * _STEPS_A_ROUND * _ROUNDS, z.shape[0]), T.real.dtype)

    def step(j, state):
        u, v, beta, entries = state
        v, alpha = _normalised(adjoint_inverse(u) - beta * v)
        u, beta = _normalised(inverse(v) - alpha * u)
        return u, v, beta, entries.at[2 * j].set(alpha).at[2 * j + 1].set(beta)

    def round_(state):
        number, lanczos, norms, _ = state
        first = number * _STEPS_A_ROUND
        lanczos = jax.lax.fori_loop(first, first + _STEPS_A_ROUND, step, lanczos)
        new = _largest_singular_value(lanczos[-1])
        steps = first + _STEPS_A_ROUND
        return number + 1, lanczos, new, jnp.any(new > (1 + tolerance * _STEPS_A_ROUND / steps) * norms)

    def unfinished(state):
        number, _, _, growing = state
        return growing & (number < _ROUNDS)

    start = (u, jnp.zeros_like(u), jnp.zeros_like(entries[0]), entries)
    number, _, norms, _ = jax.lax.while_loop(
        unfinished, round_, (jnp.int32(0), start, jnp.zeros_like(entries[0]), jnp.array(True))
    )
    return norms, number * _STEPS_A_ROUND


def _solve(T: Complex[Array, "n n"], z: Complex[Array, " m"], b: Complex[Array, "n m"]) -> Complex[Array, "n m"]:
    """Column k of the result solves (z_k I - T) x = b_k, T upper triangular: blocked back-substitution."""
    n = T.shape[-1]
    rows = min(_ROWS, n)
    count = -(-n // rows)
    front = count * rows - n
    T = jnp.pad(T, ((front, 0), (front, 0)))
    b = jnp.pad(b, ((front, 0), (0, 0)))
    tiny = jnp.sqrt(jnp.finfo(T.dtype).tiny).astype(T.real.dtype)

    def block(step, x):
        top = (count - 1 - step) * rows
        window = jax.lax.dynamic_slice_in_dim(T, top, rows)
        later = jnp.arange(T.shape[-1]) >= top + rows
        right = jax.lax.dynamic_slice_in_dim(b, top, rows) + matmul(jnp.where(later, window, 0), x)
        inside = jax.lax.dynamic_slice_in_dim(window, top, rows, axis=1)

        def row(step, solved):
            i = rows - 1 - step
            entries = jax.lax.dynamic_slice_in_dim(inside, i, 1)
            value = right[i] + matmul(jnp.where(jnp.arange(rows) > i, entries, 0), solved)[0]
            divisor = z - entries[0, i]
            return solved.at[i].set(value / jnp.where(jnp.abs(divisor) < tiny, tiny, divisor))

        solved = jax.lax.fori_loop(0, rows, row, jnp.zeros_like(right))
        return jax.lax.dynamic_update_slice_in_dim(x, solved, top, axis=0)

    return jax.lax.fori_loop(0, count, block, jnp.zeros_like(b))[front:]


def _normalised(x: Complex[Array, "n m"]) -> tuple[Complex[Array, "n m"], Float[Array, " m"]]:
    """Columns of 2-norm one (zero columns stay zero) and their norms, without overflow in the squares."""
    scale = power_of_two_above(jnp.max(jnp.maximum(jnp.abs(x.real), jnp.abs(x.imag)), axis=0))
    # A product: a complex division would square the scale.
    scaled = x * (1 / scale)
    norm = jnp.sqrt(jnp.sum(jnp.square(scaled.real) + jnp.square(scaled.imag), axis=0))
    return jnp.where(norm > 0, scaled / jnp.where(norm > 0, norm, 1), 0), norm * scale


def _largest_singular_value(entries: Float[Array, "k m"]) -> Float[Array, " m"]:
    """Largest singular value of bidiagonal matrices: the largest eigenvalue of tridiagonal ones with zero diagonal.

    With off-diagonal e scaled to at most one it lies in [1, 2], and x is above it exactly if all of q_1 = x,
    q_{j+1} = x - e_j^2 / q_j are positive.
    """
    scale = jnp.max(entries, axis=0)
    squares = jnp.square(entries / jnp.where(scale > 0, scale, 1))

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2

        def sturm(state, square):
            q, above = state
            q = middle - square / q
            above = above & (q > 0)
            # After the first negative one the count is decided: keep the recurrence finite.
            return (jnp.where(above, q, 1), above), None

        (_, above), _ = jax.lax.scan(sturm, (middle, jnp.ones(middle.shape, bool)), squares)
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    bounds = (jnp.ones_like(scale), jnp.full_like(scale, 2))
    low, high = jax.lax.fori_loop(0, jnp.finfo(entries.dtype).nmant + 2, halve, bounds)
    return scale * (low + high) / 2
