"""A trained model end to end: texts to Jacobians, at every block, by both routes in float64."""

import json

import numpy as np
import pytest

from jaxdyn.activations import capture
from jaxdyn.jacobians import jacobian
from jaxdyn.models import load
from tests.jacobians.cases import relative


@pytest.fixture(scope="module")
def prompts(shared):
    stories = json.loads((shared / "data" / "tinystories_1000.json").read_text())
    return [story[:60] for story in stories[:2]]


def test_closed_form_is_autodiff_on_a_trained_model(shared, prompts):
    model = load(shared / "models" / "stories260k", dtype="float64")
    acts = capture(model, prompts)
    assert acts.prompts.bos
    profile = []
    for layer in range(model.architecture.layers):
        closed, auto = (
            np.asarray(jacobian(model, acts, layer=layer, method=method)) for method in ("closed-form", "autodiff")
        )
        for sample in range(2):
            assert relative(closed[sample], auto[sample]) < 1e-12, layer
        profile.append(np.linalg.norm(closed - np.eye(64), axis=(1, 2)))
    assert np.std(profile) > 0.1 * np.mean(profile), "the blocks of a trained model differ"
    assert not np.allclose(*np.transpose(profile), rtol=1e-2), "the prompts differ"
