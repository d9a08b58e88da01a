from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxdyn import measures

from .samples import ginibre, pieces

EPS32 = float(np.finfo(np.float32).eps)
portrait = jax.jit(partial(measures.measure_all, kreiss=False))

SHIFT_INVARIANT = (
    "henrici",
    "complex_fraction",
    "complex_undecided",
    "mean_rotation_angle",
    "imaginary_energy",
    "antisymmetric_share",
    "self_alignment",
    "eigenvector_condition",
    "eigenvector_condition_q90",
    "eigenvector_condition_max",
)


def test_table_names_every_measure_once(rng):
    p = pieces(ginibre(rng, 6, 6))
    shapes = jax.eval_shape(measures.measure_all, **p._asdict())
    assert set(shapes) == {measure.name for measure in measures.MEASURES}
    assert len(shapes) == len(measures.MEASURES)
    assert all(shape.shape == () and shape.dtype == jnp.float64 for shape in shapes.values())
    assert all(measure.unit in measures.UNITS for measure in measures.MEASURES)
    measured = portrait(**p._asdict())
    assert set(shapes) - set(measured) == {"kreiss_scaled"}
    assert all(np.isfinite(value) for value in measured.values())


def test_block_and_update_share_what_no_shift_changes(rng):
    n = 24
    block = pieces(np.eye(n) + 0.4 * ginibre(rng, 3, n, n))
    update = block._replace(
        matrix=block.matrix - np.eye(n),
        schur=block.schur - np.eye(n),
        eigenvalues=block.eigenvalues - 1,
        singular_values=np.linalg.svd(block.matrix - np.eye(n), compute_uv=False),
    )
    of_block = portrait(**block._asdict())
    of_update = portrait(**update._asdict())
    for name in of_block:
        same = np.allclose(of_block[name], of_update[name], rtol=1e-10)
        assert same == (name in SHIFT_INVARIANT), name


def test_batch_jit_nan_and_top(rng):
    n = 12
    p = pieces(ginibre(rng, 3, n, n))
    call = jax.jit(partial(measures.measure_all, kreiss=False, top=5))
    batched = call(**p._asdict())
    for i in range(3):
        one = call(**{name: part[i] for name, part in p._asdict().items()})
        for name, value in one.items():
            np.testing.assert_allclose(batched[name][i], value, rtol=1e-12, err_msg=name)
    broken = {name: np.array(part) for name, part in p._asdict().items()}
    for part in broken.values():
        part[1] = np.nan
    for name, value in call(**broken).items():
        np.testing.assert_array_equal(np.isnan(value), [False, True, False], err_msg=name)
        np.testing.assert_allclose(value[::2], batched[name][::2], rtol=1e-12, err_msg=name)
    assert not np.allclose(batched["self_alignment"], measures.self_alignment(p.left, p.right_h))


def test_float32_agrees_with_float64(rng):
    matrix = np.eye(16) + 0.5 * ginibre(rng, 16, 16)
    single, double = pieces(matrix.astype(np.float32)), pieces(matrix)
    values, expected = portrait(**single._asdict()), portrait(**double._asdict())
    # eigenvalue conditions are below 20 here and enter their own error once more
    tolerance = 100 * 16 * EPS32 * float(double.condition.max())
    assert double.condition.max() < 20
    for name, value in values.items():
        assert value.dtype == jnp.float32, name
        np.testing.assert_allclose(value, expected[name], rtol=tolerance, atol=1e-6, err_msg=name)
