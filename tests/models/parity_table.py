"""What the parity tests compare, as the data that `jaxdyn models` prints.

`python -m tests.models.parity_table` writes it after a change of the tests' table; a test holds the two equal.
"""

import json
from pathlib import Path
from typing import Any

import jax

from tests.models.test_parity import CASES, COMPARED, TOLERANCE

PLACE = Path(__file__).resolve().parents[2] / "jaxdyn" / "models" / "parity.json"


def parity_table() -> dict[str, Any]:
    """Build every case's models, so that family and class are those that were compared, not what a name says."""
    found: dict[str, dict[str, Any]] = {}
    for case, (build, overrides) in CASES.items():
        hf, model = build(**overrides)
        row = found.setdefault(model.architecture.family, {"classes": [], "cases": {}})
        row["classes"] = sorted({*row["classes"], type(hf).__name__})
        row["cases"][case] = overrides
    return {"compared": list(COMPARED), "tolerance": TOLERANCE, "families": dict(sorted(found.items()))}


def as_text(table: dict[str, Any]) -> str:
    """The content of the file."""
    return json.dumps(table, indent=1) + "\n"


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    PLACE.write_text(as_text(parity_table()), encoding="utf-8")
