"""PLAN.yaml: what is read, and one clear error for all that cannot be meant."""

from pathlib import Path

import pytest

from jaxdyn.errors import InputError
from jaxdyn.sweep.plan import ModelEntry, Texts, load_plan

WHOLE = """\
models:
  - embedded
  - {model: EleutherAI/pythia-14m, revision: [step0, step512], name: pythia}
texts: {file: texts.txt, samples: 3, max-tokens: 20}
operators: [in-context, isolated]
derivative: frozen
parts: [block, mlp]
layers: 0,2-3
tokens: last:4
dtype: float64
weights-dtype: bfloat16
draws: 0
kreiss: true
truncate: 5
outputs: [scalars, jacobians, eigenvalues]
unit: 16
threads: 2
mesh: one
memory: 1.5 GB
seed: 7
out: results
"""
SHORT = "models: embedded\ntexts: embedded\nout: results\n"


def plan_of(text: str, folder: Path):
    (folder / "PLAN.yaml").write_text(text)
    return load_plan(folder / "PLAN.yaml")


def test_every_key_is_read(tmp_path: Path) -> None:
    plan = plan_of(WHOLE, tmp_path)
    assert plan.models == (
        ModelEntry("embedded", "embedded"),
        ModelEntry("pythia@step0", "EleutherAI/pythia-14m", revision="step0"),
        ModelEntry("pythia@step512", "EleutherAI/pythia-14m", revision="step512"),
    )
    assert plan.texts == Texts(str(tmp_path / "texts.txt"), 3, 20)
    assert (plan.operators, plan.derivative, plan.parts) == (("in-context", "isolated"), "frozen", ("block", "mlp"))
    assert (plan.layers, plan.tokens, plan.dtype, plan.weights_dtype) == ((0, 2, 3), "last:4", "float64", "bfloat16")
    assert (plan.draws, plan.kreiss, plan.truncate, plan.unit, plan.threads, plan.seed) == (0, True, 5, 16, 2, 7)
    assert (plan.outputs, plan.mesh, plan.memory) == (("eigenvalues", "jacobians"), "one", 1_500_000_000)
    assert plan.out == tmp_path / "results"
    settings = plan.settings("isolated")
    assert (settings.operator, settings.max_tokens, settings.outputs) == ("isolated", 20, plan.outputs)


def test_a_short_plan_has_the_defaults_and_out_can_be_replaced(tmp_path: Path) -> None:
    plan = plan_of(SHORT, tmp_path)
    assert (plan.operators, plan.outputs, plan.mesh) == (("in-context",), ("eigenvalues", "averages"), "data")
    assert (plan.dtype, plan.weights_dtype, plan.draws, plan.unit, plan.layers) == ("float32", None, 8, 8, ())
    assert load_plan(tmp_path / "PLAN.yaml", out=tmp_path / "else").out == tmp_path / "else"


def test_folders_beside_the_plan_and_checkpoints_are_found(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for step in (0, 1, 2, 4, 16):
        (tmp_path / "run" / "checkpoints" / str(step)).mkdir(parents=True)

    def steps(wanted: str) -> list[int | None]:
        plan = plan_of(f"models: [mine, {{training: run{wanted}}}]\ntexts: embedded\nout: results\n", tmp_path)
        assert plan.models[0] == ModelEntry("mine", str(tmp_path / "mine"))
        assert plan.models[1].source == str(tmp_path / "run")
        return [entry.step for entry in plan.models[1:]]

    assert steps("") == [0, 1, 2, 4, 16]
    assert steps(", steps: [16, 0]") == [0, 16]
    assert steps(", steps: '1*'") == [1, 16]
    assert (
        plan_of("models: {training: run, steps: 4}\ntexts: embedded\nout: x", tmp_path).models[0].name == "run-step-4"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("unit: 16", "units: 16"), r"units \(line 16\): got this key; allowed: the keys .* \(nearest: unit\)"),
        (("samples: 3", "sample: 3"), r"texts.sample \(line 4\): .*\(nearest: samples\)"),
        (("revision:", "revsion:"), r"models\[1\].revsion \(line 3\): .*\(nearest: revision\)"),
        (("unit: 16", "unit: many"), r"unit \(line 16\): got 'many'; allowed: a whole number"),
        (("unit: 16", "unit: true"), r"unit \(line 16\): got True; allowed: a whole number"),
        (("unit: 16", "unit: 0"), r"unit \(line 16\): got 0; allowed: 1 or more"),
        (("seed: 7", "seed: -1"), r"seed .*: got -1; allowed: 0 or more"),
        (("samples: 3", "samples: [3]"), r"texts.samples \(line 4\): got a list of 1; allowed: a whole number"),
        (("kreiss: true", "kreiss: 1"), r"kreiss .*: got 1; allowed: true or false"),
        (("draws: 0", "draws: 3"), r"draws \(line 12\): got 3; allowed: 0 \(no N1\), or 8 and more"),
        (("in-context, isolated", "in-context, cross"), r"operators\[1\] \(line 5\): got .cross.; allowed: in-"),
        (("in-context, isolated", "ov, ov"), r"operators .*: got a list of 2; allowed: each of .* at most once"),
        (("frozen", "thawed"), r"derivative .*: got 'thawed'; allowed: exact, frozen"),
        (("block, mlp", "blok"), r"parts\[0\] .*: got 'blok'; allowed: block, update, attention, mlp"),
        (("0,2-3", "3-0"), r"layers .*: got '3-0'; allowed: all, block numbers"),
        (("0,2-3", "[1, -2]"), r"layers\[1\] .*: got -2; allowed: block numbers"),
        (("last:4", "first"), r"tokens .*: got 'first'; allowed: last, all, or last:N"),
        (("float64", "float16"), r"dtype .*: got 'float16'; allowed: float32, float64"),
        (("mesh: one", "mesh: ring"), r"mesh \(line 18\): got 'ring'; allowed: one, data, fsdp, tensor"),
        (("mesh: one", "mesh: fsdp\nmodel-devices: 2"), r"model-devices \(line 19\): got 2; .* the mesh is fsdp"),
        (("mesh: one", "mesh: tensor\nmodel-devices: 0"), r"model-devices \(line 19\): got 0; allowed: 1 or more"),
        (("mesh: one", "mesh: grid"), r"mesh \(line 18\): got 'grid'; allowed: one, data"),
        (("1.5 GB", "much"), r"memory .*: got 'much'; allowed: bytes of one device"),
        (("1.5 GB", "-1"), r"memory .*: got -1; allowed: bytes of one device"),
        (("eigenvalues]", "spectra]"), r"outputs\[2\] .*: got 'spectra'; allowed: scalars, eigenvalues, "),
        (("seed: 7", "unit: 7"), r"unit \(line 20\): got this key again, first on line 16; allowed: each key once"),
        (("texts: {file: texts.txt, samples: 3, max-tokens: 20}", ""), r"plan.texts .*: got nothing; allowed: this"),
        (("  - embedded\n", "  - pythia@step0\n"), r"models\[1\] .*: a model once; two would be stored as "),
        (("  - embedded\n", "  - {name: x}\n"), r"models\[0\] .*: one of the keys model .* and training"),
        (("revision: [step0, step512]", "steps: 3"), r"models\[1\].steps .*: steps beside training"),
        (("model: EleutherAI/pythia-14m", "training: nowhere"), r"models\[1\].revision .*: revision beside model"),
        (("  - embedded\n", "  - {training: nowhere}\n"), r"models\[0\].training .* holds no checkpoint"),
        (("name: pythia", "name: a/b"), r"models\[1\].name .*: got 'a/b'; allowed: letters, digits"),
        (("out: results", "out: 5"), r"out .*: got 5; allowed: text"),
        (("seed: 7", "seed: [7"), "is not valid YAML"),
        (("seed: 7", "7: seed"), r"7 \(line 20\): got the key 7; allowed: keys that are text"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_line_that_says_where(
    change: tuple[str, str], message: str, tmp_path: Path
) -> None:
    assert change[0] in WHOLE
    with pytest.raises(InputError, match=message) as raised:
        plan_of(WHOLE.replace(*change), tmp_path)
    assert "\n" not in str(raised.value)
    assert raised.value.page == "docs/sweeps.md"


@pytest.mark.parametrize(("text", "message"), [("", "is empty"), ("- a\n- b\n", "got a list of 2; allowed: a table")])
def test_what_is_no_plan_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        plan_of(text, tmp_path)
    with pytest.raises(InputError, match="cannot read"):
        load_plan(tmp_path / "nothing.yaml")
