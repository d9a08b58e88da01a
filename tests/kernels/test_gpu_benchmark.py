"""The accelerator's benchmark runs unattended: a line for each case, also for one that fails or is not installed."""

import subprocess

import jaxdyn_kernels as jk
import pytest

from benchmarks import gpu_kernels
from benchmarks.gpu_kernels import main


def test_every_case_has_a_line(capsys):
    main(["--cases", "2x6", "--methods", "xla,cupy,cusolver", "--types", "float32"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["method", "xla", "cupy", "cusolver"]
    _, case, dtype, milliseconds, residual, share, *_ = lines[1].split()
    assert (case, dtype) == ("2x6", "float32")
    assert float(milliseconds) > 0
    assert 0 < float(residual) < 1e-5
    assert float(share) >= 0
    assert "cpu; 0 failed, 0 by the robust method" in lines[1]
    assert "cupy is not installed" in lines[2]
    assert "failed: " in lines[3]


def test_nothing_starts_when_the_time_is_over(capsys):
    main(["--cases", "2x6", "--methods", "xla", "--seconds", "0"])
    assert capsys.readouterr().out.count("no time left") == 2


def test_a_case_ends_at_its_limit_and_the_next_has_a_process(monkeypatch):
    worker = gpu_kernels.Worker()
    monkeypatch.setattr(worker, "_start", lambda: start(worker, ["sleep", "60"]))
    assert worker.ask("xla,2,6,float32", 1.1) == {"note": "stopped after 1 s"}
    assert worker.process is None
    monkeypatch.setattr(worker, "_start", lambda: start(worker, ["false"]))
    assert worker.ask("xla,2,6,float32", 5) == {"note": "failed: the process ended with 1"}


def start(worker, command):
    """In place of the worker's own process."""
    worker.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_what_is_compared_exists():
    own = {"jnp", "torch", "cupy"}
    assert set(gpu_kernels.METHODS) - own == set(jk.implementations("eig")) - {"lapack", "pallas"}  # a kernel for a TPU
    with pytest.raises(SystemExit):
        main(["--unknown"])
