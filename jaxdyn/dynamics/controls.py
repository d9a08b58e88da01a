"""Other trajectories of the same shape: in a random basis, or with steps that only share their length (methods.md 2.2).

- *rotated*: a Q with Q Haar: what belongs to the units, and not to the stream, is lost.
- *skip*: s_{l+1} = a_l + n_l, n_l isotropic with norm(n_l) = norm(a_{l+1} - a_l): what the skip connection alone gives.
- *shuffled*: at every point but the first the units are in another order: what a unit has with itself is lost.
- *walk*: w_0 = a_0, w_{l+1} = w_l + n_l, the same steps one after the other, for what spans more than one step.
"""

import numpy as np


def haar(width: int, seed: int) -> np.ndarray:
    """Draw an orthogonal matrix (D, D) from the Haar measure: QR of a Gaussian, signs of the diagonal of R put back."""
    q, r = np.linalg.qr(np.random.default_rng([seed, 1]).standard_normal((width, width)))
    return q * np.sign(np.diag(r))


def orders(points: int, width: int, seed: int) -> np.ndarray:
    """Draw an order of the units for every point, int (P, D); the first point keeps its own."""
    rng = np.random.default_rng([seed, 3])
    return np.stack([np.arange(width), *(rng.permutation(width) for _ in range(points - 1))])


def noise_steps(states: np.ndarray, seed: int, unit: int) -> np.ndarray:
    """Draw isotropic steps as long as the measured ones.

    Parameters
    ----------
    states : (S, P, D), float64.
    seed, unit : of the draws: a unit of work has draws of its own, the same ones whenever it is read.

    Returns
    -------
    (S, P-1, D), each of the norm of states[:, l+1] - states[:, l].
    """
    steps = np.diff(states, axis=1)
    noise = np.random.default_rng([seed, 2, unit]).standard_normal(steps.shape)
    return noise * (np.linalg.norm(steps, axis=-1, keepdims=True) / np.linalg.norm(noise, axis=-1, keepdims=True))


def skip_matched(states: np.ndarray, seed: int, unit: int = 0) -> np.ndarray:
    """Return the next point under the skip-matched null: states[:, l] + n_l, (S, P-1, D)."""
    return states[:, :-1] + noise_steps(states, seed, unit)


def noise_walk(states: np.ndarray, seed: int, unit: int = 0) -> np.ndarray:
    """Return trajectories (S, P, D) that start where the measured ones do and take the noise steps one by one."""
    steps = np.concatenate([states[:, :1], noise_steps(states, seed, unit)], axis=1)
    return np.cumsum(steps, axis=1)
