"""The main job in float32, close to float64 where that is on; CI runs this file again with JAXDYN_TEST_X64=0."""

import dataclasses

import jax
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
