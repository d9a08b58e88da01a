"""Units of work and their addresses: what is computed is named by what it is computed from.

A unit is a fixed number of samples carried through all layers, of one model and operator: the running products of a
sample need its layers in order, and one forward pass serves them all. Its address is a hash of everything that its
bytes depend on: weights, layers, parts, operator, the samples and their token ids, padding, dtype, threads, versions
and the code that computes.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jaxdyn_kernels
import numpy as np

from jaxdyn import provenance
from jaxdyn.activations import Prompts
from jaxdyn.models.model import Model
from jaxdyn.pipeline.run import fixed_settings
from jaxdyn.pipeline.samples import Samples, make_samples
from jaxdyn.pipeline.settings import Settings

from .plan import ModelEntry, Plan

COMPUTES = (
    "activations.py", "jacobians", "measures", "models", "pipeline", "propagate.py", "sharding.py", "spectra.py",
    "sweep/split_model.py", "sweep/stages.py",
)  # fmt: skip
"""What of the package decides the bytes of a unit; the kernels beside it do too."""


@dataclass(frozen=True)
class Run:
    """One model under one operator: one store.

    Attributes
    ----------
    model, operator : which.
    folder : of `results.zarr`, `MODEL/OPERATOR` in the sweep's.
    first : number of its first unit in the whole sweep.
    units, samples, layers : how many there are.
    """

    model: ModelEntry
    operator: str
    folder: Path
    first: int
    units: int
    samples: int
    layers: int

    @property
    def store(self) -> Path:
        """Where its results are."""
        return self.folder / "results.zarr"


@dataclass(frozen=True)
class Work:
    """A run with its model at hand, loaded or in outline."""

    model: Model
    settings: Settings
    texts: list[str]
    prompts: Prompts
    samples: Samples
    layers: tuple[int, ...]

    def fixed(self, threads: int) -> dict[str, Any]:
        """All that must be the same for the same bytes; the store keeps it and a resumed sweep is compared with it."""
        given = (self.model, self.texts, self.settings, self.prompts, self.samples, self.layers)
        return {**fixed_settings(*given), "cores": threads, "rows": self.samples.prompts_per_unit, "code": code()}


def make_work(plan: Plan, operator: str, model: Model, texts: list[str], prompts: Prompts) -> Work:
    """Put a run's settings, samples and layers together."""
    settings = plan.settings(operator)
    samples = make_samples(prompts, tokens=plan.tokens, unit=plan.unit)
    return Work(model, settings, texts, prompts, samples, settings.resolved_layers(model.architecture))


def unit_ids(samples: Samples, fixed: Mapping[str, Any]) -> list[str]:
    """Return the address of every unit, sha256 in hex; the texts enter by the unit's own token ids alone."""
    told = {key: value for key, value in fixed.items() if key != "texts_hash"}
    base = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    found = []
    for unit in range(samples.units):
        one, members = base.copy(), samples.members(unit)
        rows = np.unique(samples.prompt[members])
        for array in (
            members, samples.prompt[members], samples.position[members], rows,
            samples.prompts.lengths[rows], samples.prompts.token_ids[rows],
        ):  # fmt: skip
            one.update(np.ascontiguousarray(array, np.int64).tobytes() + b"|")
        found.append(one.hexdigest())
    return found


def prompt_hashes(samples: Samples) -> list[str]:
    """Return the prompt that each sample is from: sha256 (16 digits) over its token ids."""
    prompts = samples.prompts
    found = [
        hashlib.sha256(np.ascontiguousarray(row[:length], np.int64).tobytes()).hexdigest()[:16]
        for row, length in zip(prompts.token_ids, prompts.lengths, strict=True)
    ]
    return [found[prompt] for prompt in samples.prompt]


@functools.cache
def code() -> str:
    """sha256 over the source files that compute a unit, of the package and the kernels, the version aside."""
    root, digest = Path(provenance.__file__).parent, hashlib.sha256()
    kernels = Path(jaxdyn_kernels.__file__).parent
    files = [(root, file) for name in COMPUTES for file in _sources(root / name)]
    files += [(kernels.parent, file) for file in _sources(kernels)]
    for base, file in files:
        content = file.read_bytes()
        digest.update(f"{file.relative_to(base).as_posix()} {len(content)} ".encode() + content)
    return digest.hexdigest()


def _sources(place: Path) -> list[Path]:
    return [place] if place.is_file() else sorted(place.rglob("*.py"))
