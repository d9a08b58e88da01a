"""Comparing whole stores."""

from pathlib import Path

import numpy as np

import jaxdyn


def assert_same_bits(first: Path, second: Path) -> None:
    """Every variable of every group has the same bytes (text: the same values) in both stores."""
    one, two = jaxdyn.open_tree(first).load(), jaxdyn.open_tree(second).load()
    assert one.groups == two.groups
    for group in one.groups:
        mine, theirs = one[group].to_dataset(), two[group].to_dataset()
        assert set(mine.variables) == set(theirs.variables)
        for name in mine.variables:
            a, b = np.asarray(mine[name].values), np.asarray(theirs[name].values)
            same = a.tobytes() == b.tobytes() if a.dtype.kind in "fciub" else a.tolist() == b.tolist()
            assert same, f"{group}/{name} differs"
