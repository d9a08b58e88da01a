"""The package imports cheaply, lazily, under both of its names, and never imports jaxdyn."""

import ast
import subprocess
import sys
from pathlib import Path

import jaxdyn_kernels as jk
import pytest

ROOT = Path(jk.__file__).resolve().parents[1]


def run(code: str) -> str:
    """What a fresh interpreter in the repository's root prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["kernels", "jaxdyn_kernels"])
def test_import_is_cheap_and_claims_no_version(name):
    code = f"""
import sys
sys.path.insert(0, '.')
import {name} as package
heavy = [m for m in ('jax', 'numpy', 'scipy', 'jaxdyn', 'threadpoolctl') if m in sys.modules]
print(heavy, hasattr(package, '__version__'), hasattr(package, 'get_kernel'), sorted(package.__all__) == dir(package))
"""
    assert run(code) == "[] False False True"


def test_relative_imports_work_under_the_other_name():
    """Transformers may import the folder as `kernels`; what it holds then still works."""
    code = """
import sys
sys.path.insert(0, '.')
import kernels
import numpy as np
print(kernels.schur(np.eye(2, dtype=np.float32)).implementation, 'jaxdyn_kernels' in sys.modules)
"""
    assert run(code) == "lapack False"


def test_submodules_do_not_hide_the_functions_of_the_same_name():
    code = """
import jaxdyn_kernels.schur.lapack, jaxdyn_kernels.eig.api
import jaxdyn_kernels as jk
print(callable(jk.schur), callable(jk.eig), jk.schur.__name__)
"""
    assert run(code) == "True True schur"


def test_every_public_name_resolves():
    for name in jk.__all__:
        assert getattr(jk, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'hessenburg'"):
        _ = jk.hessenburg


def test_kernels_never_import_jaxdyn():
    for path in (ROOT / "kernels").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] == "jaxdyn" for name in names), path
