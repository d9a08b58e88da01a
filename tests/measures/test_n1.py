from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from jaxdyn import measures
from jaxdyn.measures import nulls

from .samples import pieces

draw_null = jax.jit(nulls.n1_matrices, static_argnames=("draws", "first_draw", "full"))
KEY = jax.random.key(7)


def test_haar_is_orthogonal_and_uniform():
    n, draws = 6, 4000
    q = np.asarray(nulls.haar(jax.random.split(KEY, draws), n, jnp.float64))
    np.testing.assert_allclose(np.swapaxes(q, 1, 2) @ q, np.broadcast_to(np.eye(n), q.shape), atol=1e-14)

    def check(sample, expected):
        error = sample.std(ddof=1) / np.sqrt(draws)
        assert abs(sample.mean() - expected) < 4.5 * error, expected

    check(q[:, 0, 0], 0)  # without the sign of R's diagonal this is far from 0
    check(q[:, n - 1, n - 1], 0)
    check(np.trace(q, axis1=1, axis2=2), 0)
    check(np.trace(q, axis1=1, axis2=2) ** 2, 1)
    check(np.trace(q @ q, axis1=1, axis2=2), 1)
    check(q[:, 1, 2] ** 2, 1 / n)
    check(q[:, 1, 2] ** 4, 3 / (n * (n + 2)))
    check(q[:, 0, 0] ** 2 * q[:, 1, 1] ** 2, (n + 1) / (n * (n - 1) * (n + 2)))
    check(np.linalg.det(q), 0)


@pytest.mark.parametrize("full", [False, True])
def test_singular_values_and_vectors_are_those_promised(full):
    s = jnp.asarray([[3.0, 2.0, 1.0, 0.5, 0.2, 0.0], [1.0, 1.0, 1.0, 1e-3, 1e-4, 1e-6]] * 2)
    t = jnp.asarray([1.0, -2.0, 0.0, 5.0])
    null = draw_null(KEY, s, t, jnp.asarray([4, 9, 2, 3]), draws=3, full=full)
    assert null.matrix.shape == (4, 3, 6, 6)
    deviation = null.matrix - t[:, None, None, None] * jnp.eye(6)
    values = np.linalg.svd(deviation, compute_uv=False)
    np.testing.assert_allclose(values, np.broadcast_to(s[:, None], values.shape), atol=1e-14)
    built = (null.left * s[:, None, None, :]) @ null.right_h
    np.testing.assert_allclose(deviation, built, atol=1e-14)
    assert (np.abs(np.asarray(null.right_h) - np.eye(6)).max() > 0.1) == full


def test_draws_depend_on_id_and_number_only():
    s = jnp.abs(jax.random.normal(KEY, (4, 6)))
    t, ids = jnp.arange(4.0), jnp.asarray([3, 1, 70000, 2])
    together = draw_null(KEY, s, t, ids, draws=3).matrix
    alone = [draw_null(KEY, s[i], t[i], ids[i], draws=3).matrix for i in range(4)]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-14)  # same draws; t + w s may be fused or not
    later = draw_null(KEY, s, t, ids, draws=1, first_draw=2).matrix
    np.testing.assert_allclose(together[:, 2:], later, atol=1e-14)
    assert len({float(x) for x in together[..., 0, 0].ravel()}) == 12  # all draws differ
    other = draw_null(jax.random.key(8), s, t, ids, draws=3).matrix
    assert not np.any(together == other)


def test_float32_and_nan_matrix():
    s = jnp.asarray([[2.0, 1.0], [jnp.nan, 1.0]], dtype=jnp.float32)
    null = draw_null(KEY, s, jnp.zeros(2, jnp.float32), jnp.arange(2))
    assert null.matrix.dtype == jnp.float32
    assert null.matrix.shape == (2, nulls.DRAWS, 2, 2)
    np.testing.assert_array_equal(np.isnan(null.matrix).any((1, 2, 3)), [False, True])
    with pytest.raises(ValueError, match="got 0, 0"):
        draw_null(KEY, s, jnp.zeros(2, jnp.float32), jnp.arange(2), draws=0)


def test_one_haar_matrix_is_enough_for_every_measure():
    n, draws = 12, 150
    s, t = jnp.linspace(2, 0.1, n), jnp.asarray(1.0)
    means = []
    for full in (False, True):
        null = draw_null(jax.random.key(int(full)), s, t, jnp.asarray(0), draws=draws, full=full)
        p = pieces(np.asarray(null.matrix))._replace(left=null.left, right_h=null.right_h)
        means.append(
            {k: np.asarray(v) for k, v in jax.jit(partial(measures.measure_all, kreiss=False))(**p._asdict()).items()}
        )
    for name, half in means[0].items():
        if name == "eigenvector_condition_max":  # its variance is infinite
            continue
        whole = means[1][name]
        error = np.sqrt((half.var(ddof=1) + whole.var(ddof=1)) / draws)
        assert abs(half.mean() - whole.mean()) <= 4 * error, name


def test_known_singular_vectors_give_the_alignment_of_a_decomposition():
    s = jnp.broadcast_to(jnp.linspace(2, 0.1, 6), (4, 6))
    null = draw_null(KEY, s, jnp.zeros(4), jnp.arange(4), draws=3)
    u, _, vh = np.linalg.svd(null.matrix[1, 2])
    expected = measures.self_alignment(jnp.asarray(u), jnp.asarray(vh), top=3)
    np.testing.assert_allclose(
        measures.self_alignment(null.left[1, 2], null.right_h[1, 2], top=3), expected, rtol=1e-10
    )


def test_summary_and_excess():
    mean, sd = nulls.summarise(jnp.asarray([[1.0, 3.0, 5.0], [1.0, jnp.nan, 2.0]]))
    np.testing.assert_array_equal(mean, [3, np.nan])
    np.testing.assert_array_equal(sd, [2, np.nan])
    assert nulls.excess(jnp.asarray(5.0), mean[0]) == 2


def load_lens(shared):
    from safetensors.numpy import load_file

    stored = load_file(shared / "data" / "jlens_stories15m.safetensors")
    return np.stack([stored[name] for name in sorted(stored)]).astype(np.float32)


def henrici_profile(matrices):
    """Normalised Henrici departures of a stack, by LAPACK through jax."""
    with threadpool_limits(1, user_api="blas"):
        schur = jax.lax.linalg.schur(jnp.asarray(matrices), compute_schur_vectors=False)[0].block_until_ready()
    return measures.henrici_normalized(schur)


def test_real_jacobians_follow_their_null(shared):
    # methods 1.7: Henrici .761 .728 .670 .609 .496; N1 falls .782 -> .519
    lens = load_lens(shared)  # float32: Henrici to 1e-6
    measured = henrici_profile(lens)
    np.testing.assert_allclose(measured, [0.761, 0.728, 0.670, 0.609, 0.496], atol=5e-4)
    ends = lens[[0, -1]]
    t = np.trace(ends, axis1=1, axis2=2) / ends.shape[-1]
    s = np.linalg.svd(ends - t[:, None, None] * np.eye(ends.shape[-1], dtype=np.float32), compute_uv=False)
    null = draw_null(KEY, jnp.asarray(s), jnp.asarray(t), jnp.asarray([0, 4]), draws=1)
    values = henrici_profile(null.matrix[:, 0])
    np.testing.assert_allclose(values, [0.782, 0.519], atol=4e-3)
    assert np.all(np.abs(measured[jnp.asarray([0, -1])] - values) < 0.03)
