"""The house: what may import what, and what the wheel ships."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

STAGES = (
    "models", "activations", "jacobians", "spectra", "measures", "propagate", "nulls", "surrogates", "functional",
    "store", "semanticity", "topology", "dynamics", "report",
)  # fmt: skip
"""In the order of the data; `propagate` uses `measures`. The pipeline, the study and the command line
put all of them together."""


def imported(path: Path) -> set[str]:
    """Absolute names of the modules a file imports, relative imports resolved."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *(node.module or "").split("."))).strip(".")
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def stage_of(module: str) -> str | None:
    """Stage of a dotted module name, or None outside the stages."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "jaxdyn" and parts[1] in STAGES else None


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_no_later_stage(stage: str) -> None:
    place = ROOT / "jaxdyn" / stage
    files = list(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    assert files
    assert all(file.is_file() for file in files)
    for file in files:
        for name in imported(file):
            other = stage_of(name)
            assert other is None or STAGES.index(other) <= STAGES.index(stage), f"{file} imports {name}"
            assert not name.startswith(("jaxdyn.pipeline", "jaxdyn.cli")), f"{file} imports {name}"


def test_kernels_never_import_jaxdyn() -> None:
    files = list((ROOT / "kernels").rglob("*.py"))
    assert files
    for file in files:
        assert not any(name.split(".")[0] == "jaxdyn" for name in imported(file)), file


def test_only_spectra_and_what_uses_the_cores_or_times_a_schur_form_use_kernels() -> None:
    threads = {
        "propagate.py",
        "nulls/n1_singular_values.py",
        "nulls/n2_rotated.py",
        "surrogates/by_name.py",
        "pipeline/host.py",
        "pipeline/run.py",
        "pipeline/estimate.py",
        "report/painter.py",
        "dynamics/lyapunov.py",
        "sweep/run.py",
        "sweep/step.py",
        "sweep/portrait.py",
        "sweep/worker.py",
        "sweep/units.py",
        "sweep/dry_run.py",
        "sweep/processes.py",
    }
    allowed = {"spectra.py", "measures/pseudospectra.py", "doctor.py", *threads}
    users = {
        str(file.relative_to(ROOT / "jaxdyn"))
        for file in (ROOT / "jaxdyn").rglob("*.py")
        if any(name.split(".")[0] == "jaxdyn_kernels" for name in imported(file))
    }
    assert users <= allowed, users - allowed


def test_the_wheel_lists_every_package_of_the_tree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    found = set()
    for folder, name in (("jaxdyn", "jaxdyn"), ("kernels", "jaxdyn_kernels")):
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join((name, *init.parent.relative_to(ROOT / folder).parts)))
    assert listed == found


def test_the_library_never_sets_jax_config() -> None:
    for file in (*(ROOT / "jaxdyn").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")):
        if file.name not in ("cli.py", "application.py"):
            assert "jax.config.update" not in file.read_text().replace("call jax.config.update", ""), file


def test_the_import_helper_sees_relative_and_absolute_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file = tmp_path / "jaxdyn" / "models" / "bad.py"
    file.parent.mkdir(parents=True)
    file.write_text("from ..report import figures\nimport jaxdyn.store\nfrom .x import y\n")
    names = imported(file)
    assert {"jaxdyn.report.figures", "jaxdyn.store", "jaxdyn.models.x.y"} <= names
    assert stage_of("jaxdyn.report.figures") == "report"
    assert stage_of("jaxdyn.cli") is None
