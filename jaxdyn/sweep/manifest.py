"""`sweep.json`, written when a sweep is created and compared whenever a process joins: what its bytes depend on.

It holds the plan, the hash of the texts, versions and code, the threads of a process, and of every run the number of
units and the padding. A process whose plan or machine would give other bytes is refused with all that differs.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdyn import provenance
from jaxdyn.activations import tokenise
from jaxdyn.pipeline.texts import hash_texts
from jaxdyn.store import StoreError
from jaxdyn.store.files import reported, write_durably

from .models import outline, texts_of
from .plan import ModelEntry, Plan
from .presets import mesh_told
from .strict_yaml import PAGE
from .units import Run, code, make_work

FILE = "sweep.json"
FORMAT = 1
MERGE_ORDER = "the sums of a store's units, in ascending order of their numbers"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What is fixed at creation: `told`, the content of the file, and the runs it lists."""

    told: dict[str, Any]
    runs: tuple[Run, ...]

    @property
    def threads(self) -> int:
        """Cores that every process works with."""
        return self.told["threads"]

    @property
    def units(self) -> int:
        """Units of all runs."""
        return sum(run.units for run in self.runs)


def write_manifest(plan: Plan, threads: int) -> None:
    """Describe the sweep from the models' outlines and the texts, and write the file durably."""
    told = _decisive(plan) | {"mesh": mesh_told(plan), "format": FORMAT, "threads": threads}
    told |= {"merge_order": MERGE_ORDER, "runs": list_runs(plan)}
    with reported(plan.out, "write"):
        plan.out.mkdir(parents=True, exist_ok=True)
        write_durably(plan.out / FILE, json.dumps(told, indent=1).encode())


def list_runs(plan: Plan) -> list[dict[str, Any]]:
    """Return what each run of a plan will do, as plain values, from outlines alone."""
    texts, found = texts_of(plan), []
    for entry in plan.models:
        model = outline(entry, plan)
        prompts = tokenise(model, texts, max_tokens=plan.texts.max_tokens)
        for operator in plan.operators:
            work = make_work(plan, operator, model, texts, prompts)
            found.append(
                {
                    "model": dataclasses.asdict(entry),
                    "operator": operator,
                    "layers": len(work.layers),
                    "samples": work.samples.count,
                    "units": work.samples.units,
                    "unit": work.samples.unit,
                    "padded_tokens": int(prompts.token_ids.shape[1]),
                    "rows": work.samples.prompts_per_unit,
                }
            )
    return found


def read_manifest(out: Path) -> Manifest | None:
    """Read the file; None where there is no sweep yet.

    Raises
    ------
    StoreError : what is there is no manifest, or one of another format.
    """
    file = out / FILE
    with reported(out, "open"):
        try:
            told = json.loads(file.read_text())
            form = told["format"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            msg = f"{file} is not a sweep's manifest; nothing was touched; choose another out"
            raise StoreError(msg, page=PAGE) from error
    if form != FORMAT:
        msg = f"{file} has format {form}, this version reads {FORMAT}; use the version that wrote it, or another out"
        raise StoreError(msg, page=PAGE)
    runs, first = [], 0
    for run in told["runs"]:
        entry = ModelEntry(**run["model"])
        place = out / entry.name / run["operator"]
        runs.append(Run(entry, run["operator"], place, first, run["units"], run["samples"], run["layers"]))
        first += run["units"]
    return Manifest(told, tuple(runs))


def check_manifest(manifest: Manifest, plan: Plan) -> None:
    """Refuse a plan, or a machine, that would give other bytes than the sweep has.

    Raises
    ------
    StoreError : one line with all that differs.
    """
    mesh, made = mesh_told(plan), manifest.told.get("mesh")
    if mesh != made:
        msg = (
            f"mesh: the sweep in {plan.out} was made {_mesh(made)}, on which its bits depend; now it is {_mesh(mesh)}; "
            "start it as it was, or choose another out"
        )
        raise StoreError(msg, page=PAGE)
    now, then = _flat(_decisive(plan)), _flat(manifest.told)
    if plan.threads is not None:
        now["threads"] = json.dumps(plan.threads)
    keys = {key for key in then if key.split(".")[0] in ("plan", "texts_hash", "code", "bits")} | set(now)
    if different := [key for key in sorted(keys) if now.get(key) != then.get(key)]:
        listed = "; ".join(f"{key} (now {_short(now, key)}, created with {_short(then, key)})" for key in different)
        msg = (
            f"the sweep in {plan.out} was created with other settings: {listed}. Repeat the plan it was made with, or "
            "choose another out"
        )
        raise StoreError(msg, page=PAGE)


def _mesh(told: Mapping[str, Any] | None) -> str:
    """Say a mesh in words."""
    if told is None:
        return "with one or data, a device a unit"
    axes = " x ".join(f"{name} {size}" for name, size in told["axes"].items())
    return f"with {told['preset']} over {axes} devices in {told['processes']} processes"


def _decisive(plan: Plan) -> dict[str, Any]:
    told = {key: value for key, value in plan.decisive().items() if key != "texts"}
    texts = dataclasses.asdict(plan.texts)
    del texts[
        "file"
    ]  # its content counts, wherever it lies; and so it is with the models, whose hashes the stores have
    told["models"] = [{key: value for key, value in one.items() if key != "source"} for one in told["models"]]
    return {
        "plan": json.loads(json.dumps({**told, "texts": texts})),
        "texts_hash": hash_texts(texts_of(plan)),
        "code": code(),
        "bits": json.loads(json.dumps(provenance.bits())),
    }


def _flat(told: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Map dotted names to JSON texts."""
    flat: dict[str, str] = {}
    for key, value in told.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: json.dumps(value)}
    return flat


def _short(flat: Mapping[str, str], key: str) -> str:
    text = flat.get(key, "nothing")
    return text if len(text) <= 60 else f"{text[:57]}..."
