"""One BLAS thread a matrix, the cores over the batch; and no call that waits for ever."""

import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import jaxdyn_kernels as jk
import numpy as np
import pytest
import scipy.linalg  # noqa: F401  (its OpenBLAS is the one that is limited)
from jaxdyn_kernels import threads
from jaxdyn_kernels.over_cores import over_cores
from threadpoolctl import threadpool_info


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def record(A, *, seen):
    """A function of matrices that notes the limit at the time it runs on the host."""
    jax.debug.callback(lambda: seen.append(blas_threads()))
    return A * 2


class Seen(list):
    """A list that can be a static argument."""

    def __hash__(self):
        return id(self)

    def __lt__(self, other):
        return id(self) < id(other)


def test_limit_holds_inside_and_is_undone_after():
    before = blas_threads()
    with jk.single_threaded_blas():
        assert blas_threads() == {1}
        with jk.single_threaded_blas():
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == before


def test_limit_is_undone_after_an_error():
    before = blas_threads()
    with pytest.raises(RuntimeError, match="inside"), jk.single_threaded_blas():
        raise RuntimeError("inside")  # noqa: EM101
    assert blas_threads() == before


def test_overlapping_threads_restore_the_first_number():
    """First in, first out: the one that leaves last must not restore the other's limit."""
    before = blas_threads()
    inside, leave = threading.Event(), threading.Event()

    def first():
        with jk.single_threaded_blas():
            inside.set()
            leave.wait(30)

    other = threading.Thread(target=first)
    other.start()
    assert inside.wait(30)
    with jk.single_threaded_blas():
        leave.set()
        other.join()
        assert blas_threads() == {1}
    assert blas_threads() == before


def test_a_batch_runs_inside_the_limit_and_a_single_matrix_does_not():
    if blas_threads() == {1}:
        pytest.skip("BLAS has one thread on this machine: the limit changes nothing; run on two cores or more")
    seen = Seen()
    threads.spread(record, np.ones((3, 100, 100), np.float32), seen=seen)
    assert seen == [{1}] * 3
    seen.clear()
    threads.spread(record, np.ones((1, 100, 100), np.float32), seen=seen)
    assert seen[0] != {1}


def double(A, *, power):
    return {"a": A * 2**power, "trace": jnp.trace(A, axis1=-2, axis2=-1)}


@pytest.mark.parametrize(
    "shape", [(5, 70, 70), (3, 100, 100), (2, 3, 9, 9), (0, 4, 4), (3, 0, 0), (4, 4), (1, 2, 2), (7, 1, 1)]
)
def test_spread_is_the_function_over_all_leading_axes(shape, rng):
    A = rng.standard_normal(shape)
    out = jk.spread(double, A, power=3)
    assert out["a"].shape == shape
    assert out["trace"].shape == shape[:-2]
    assert np.array_equal(out["a"], A * 8)
    assert np.allclose(out["trace"], np.trace(A, axis1=-2, axis2=-1))


def weighed(A, others, factor, *, power):
    """Of arrays [B, L, n, n]: something that depends on every argument."""
    weight = others["weight"][:, None, None, None] * others["row"][:, :, None, None]
    return {"first": A[:, 0] * factor, "all": weight * A**power}


@pytest.mark.parametrize("n", [7, 70, 110])
def test_what_belongs_to_a_matrix_goes_with_it_and_what_all_share_to_all(n, rng):
    A = rng.standard_normal((5, 3, n, n))
    others = {"weight": rng.standard_normal(5), "row": rng.standard_normal((5, 3))}
    expected = weighed(A, others, 2.5, power=2)
    for out in (
        jk.spread(weighed, A, others, axes=1, common=(2.5,), power=2),
        over_cores(weighed, jnp.asarray(A), others, axes=1, common=(2.5,), power=2),
        jax.jit(lambda A: over_cores(weighed, A, others, axes=1, common=(2.5,), power=2))(A),
    ):
        for name, value in expected.items():
            np.testing.assert_allclose(out[name], value, rtol=1e-14)


def test_wide_matrices_are_spread_and_narrow_ones_stay_together(rng, monkeypatch):
    seen = []
    monkeypatch.setattr("jaxdyn_kernels.over_cores.spread", lambda function, A, **_: seen.append(A.shape))
    for shape in ((3, 110, 110), (3, 64, 64), (1, 110, 110)):
        over_cores(double, jnp.asarray(rng.standard_normal(shape)), power=2)
    assert seen == [(3, 110, 110)]


def test_spread_passes_errors_on():
    with pytest.raises(TypeError, match="unsupported"):
        jk.spread(double, np.ones((3, 3, 3)), power="x")


def test_one_program_a_size_and_not_a_batch(rng):
    """A new number of matrices of order 100 and more does not compile again."""
    threads._compiled.cache_clear()
    for count in (2, 3, 9):
        jk.spread(double, rng.standard_normal((count, 100, 100)), power=1)
    assert threads._compiled.cache_info().misses == 1


def test_vmap_of_a_lapack_call_is_a_loop():
    """A batched LAPACK call can wait for ever (the module's header): none may be in the program."""
    A = jax.ShapeDtypeStruct((6, 5, 5), jnp.float32)
    text = jax.jit(jax.vmap(jk.schur)).lower(A).as_text()
    assert "lapack_sgees_ffi" in text
    assert "tensor<6x5xf32>" not in text.split("lapack_sgees_ffi")[1].split("\n")[0]
    batched = jax.jit(jax.lax.linalg.schur).lower(A).as_text()
    assert "tensor<6x5xf32>" in batched.split("lapack_sgees_ffi")[1].split("\n")[0]


def test_calls_from_several_threads_and_several_in_one_program_end():
    """As many batches at once as there are cores is what deadlocks the batched calls of jaxlib 0.10."""
    code = """
from concurrent.futures import ThreadPoolExecutor
import jax, numpy as np, jaxdyn_kernels as jk
A = np.random.default_rng(0).standard_normal((8, 64, 64)).astype(np.float32)
def program(A):
    return [jk.schur(A + k).T for k in range(4)]
jitted = jax.jit(program)
with ThreadPoolExecutor(6) as pool:
    futures = [pool.submit(lambda: jax.block_until_ready(jitted(A))) for _ in range(6)]
    futures += [pool.submit(jk.schur, A) for _ in range(6)]
    for future in futures:
        future.result()
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180)
    assert done.stdout.strip() == "done", done.stderr
