"""Choice of implementation: explicit, with every reason in the error; nothing falls back in silence."""

import re

import jax
import jax.numpy as jnp
import jaxdyn_kernels as jk
import numpy as np
import pytest
from jaxdyn_kernels import dispatch


def test_names_and_their_order():
    assert jk.implementations("schur") == jk.implementations("hessenberg") == ("lapack", "xla")
    assert jk.implementations("eig") == jk.implementations("eigvals") == jk.implementations("schur")
    assert jk.implementations("resolvent_norm") == jk.implementations("refine") == ("xla",)
    with pytest.raises(ValueError, match="operation='svd' is unknown: use one of 'schur'"):
        jk.implementations("svd")


def test_choice_by_platform():
    for operation in ("schur", "hessenberg"):
        assert dispatch.choose(operation, "cpu").name == "lapack"
        assert dispatch.choose(operation, "tpu", "lapack").name == "lapack"
        for platform in ("cuda", "rocm", "tpu"):
            assert dispatch.choose(operation, platform).name == "xla"
    for platform in dispatch.PLATFORMS:
        assert dispatch.choose("resolvent_norm", platform).name == "xla"
    with pytest.raises(
        ValueError, match="implementation='cusolver' is unknown for 'schur': use one of 'lapack', 'xla', or None"
    ):
        dispatch.choose("schur", "cuda", "cusolver")


def test_unsupported_platform_names_each_reason_and_the_remedy(monkeypatch):
    other = dispatch.Implementation("other", ".none", ("tpu",), "another method", "it needs a TPU")
    monkeypatch.setitem(dispatch.TABLE, "schur", (dispatch.TABLE["schur"][0], other))
    assert dispatch.choose("schur", "tpu").name == "other"
    with pytest.raises(NotImplementedError) as error:
        dispatch.choose("schur", "cuda")
    for part in ("'cuda'", "lapack: LAPACK runs on the host only", "implementation='lapack'", "other: it needs a TPU"):
        assert part in str(error.value)


def test_platform_of_arrays_and_of_traces():
    assert dispatch.platform_of(np.ones(3)) == "cpu"
    assert dispatch.platform_of(jnp.ones(3)) == "cpu"
    with jax.default_device(jax.devices("cpu")[0]):
        assert dispatch.platform_of(np.ones(3)) == "cpu"
    seen = []
    jax.jit(lambda x: seen.append(dispatch.platform_of(x)) or x)(1.0)
    assert seen == ["cpu"]


def test_platforms_have_the_names_of_lowering():
    class Client:
        platform_version = "cuda 13"

    class Device:
        platform = "gpu"
        client = Client()

    assert dispatch._platform(Device()) == "cuda"
    Client.platform_version = "PJRT ROCm 7"
    assert dispatch._platform(Device()) == "rocm"


def test_describe_covers_every_operation_and_platform(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    rows = jk.describe()
    assert len(rows) == 6 * len(dispatch.PLATFORMS)
    by = {(row.operation, row.platform): row for row in rows}
    assert by["schur", "cpu"].implementation == "lapack"
    assert "inside your own jit" in by["eig", "cpu"].note
    assert "3 BLAS threads (from the environment)" in by["eig", "cpu"].note
    assert by["eig", "tpu"].implementation == by["hessenberg", "cuda"].implementation == "xla"
    assert "shifted QR" in by["eig", "tpu"].note
    assert by["resolvent_norm", "tpu"].implementation == "xla"
    assert [row.platform for row in jk.describe(("cuda",))] == ["cuda"] * 6


def test_describe_says_why_nothing_would_run(monkeypatch):
    monkeypatch.setitem(dispatch.TABLE, "schur", dispatch.TABLE["schur"][:1])
    (row,) = [row for row in jk.describe(("tpu",)) if row.operation == "eig"]
    assert row.implementation is None
    assert "LAPACK runs on the host only" in row.note


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_what_claims_to_run_everywhere_lowers_everywhere(platform):
    """Every operation: no host callback, no custom call of another platform, no float64 in the float32 path."""
    T = jax.ShapeDtypeStruct((2, 40, 40), jnp.float32)
    z = jax.ShapeDtypeStruct((5,), jnp.complex64)

    def everything(T, z):
        forms = jk.schur(T, implementation="xla"), jk.hessenberg(T, implementation="xla")
        portrait = jk.eig(T, left=True, implementation="xla"), jk.eigvals(T, implementation="xla")
        refined = (
            jk.refine(T, T, T, implementation="xla"),
            jk.refine(T, T, T, residual="double-single", implementation="xla"),
        )
        slopes = jax.grad(lambda T: jnp.sum(jnp.abs(jk.eigvals(T, implementation="xla"))))(T)
        return forms, portrait, refined, slopes, jk.eigenvectors_from_schur(T, T), jk.resolvent_norm(T, z)

    text = jax.jit(everything).trace(T, z).lower(lowering_platforms=(platform,)).as_text()
    assert "callback" not in text
    assert "lapack" not in text
    # Scalars may be; nothing of a matrix.
    assert not re.search(r"x(complex<)?f64", text)
