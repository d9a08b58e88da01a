"""The main job in float32, close to float64 where that is on; CI runs this file again with JAXDYN_TEST_X64=0."""

import dataclasses

import jax
import jaxdyn_kernels as jk
import numpy as np

import jaxdyn
from tests.models.tiny import tiny_llama
from tests.words import TEXTS, WordTokenizer

SIZES = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24}


def run(dtype: str):
    model = dataclasses.replace(tiny_llama(dtype=dtype, **SIZES)[1], tokenizer=WordTokenizer())
    return jaxdyn.analyze(model, TEXTS[:2], layers=[1], draws=8, kreiss=False)


def test_a_float32_model_is_analysed_in_float32() -> None:
    ds = run("float32")
    assert ds["henrici"].dtype == np.float32
    assert ds["eigenvalues"].dtype == np.complex64
    assert np.all(ds["status"] == 0)
    assert np.all(ds["residual"] < 10)
    for name in ("henrici_normalized", "effective_rank", "spectral_norm"):
        assert np.all(np.isfinite(ds[name]))
        assert np.all(np.isfinite(ds[f"{name}_null"]))
    if jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        exact = run("float64")
        assert exact["henrici"].dtype == np.float64
        for name in ("henrici", "spectral_norm", "effective_rank", "numerical_abscissa"):
            np.testing.assert_allclose(ds[name], exact[name], rtol=float(16 * 16 * np.finfo(np.float32).eps))


def test_pairs_of_float32_hold_more_than_float32() -> None:
    """Without float64 on the device; numpy checks the sums in double precision."""
    A = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)
    form = jk.schur(A)
    result = jk.refine(A, form.Q, form.T, residual="double-single")
    assert result.T.dtype == result.residual.dtype == np.float32
    T, Q = (
        np.asarray(high).astype(np.float64) + np.asarray(low)
        for high, low in ((result.T, result.T_low), (result.Q, result.Q_low))
    )
    assert np.linalg.norm(A @ Q - Q @ T) < 1e-13 * np.linalg.norm(A)
    assert result.converged
