"""Fixtures of the Jacobian tests."""

import numpy as np
import pytest

from jaxdyn.activations import capture, pad


@pytest.fixture
def capture_ids():
    """Capture the last position of rows of token ids."""

    def take(model, ids, **options):
        return capture(model, pad([np.asarray(row) for row in ids], bos=False), **options)

    return take
