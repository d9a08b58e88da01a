"""Choice of implementation: explicit, with every reason in the error; nothing falls back in silence."""

import re

import jax
import jax.numpy as jnp
import jaxdyn_kernels as jk
import numpy as np
import pytest
from jaxdyn_kernels import dispatch


def test_names_and_their_order():
    assert jk.implementations("schur") == ("lapack", "divide", "pallas", "wavefront", "xla")
    assert jk.implementations("hessenberg") == ("lapack", "xla")
    assert jk.implementations("eig") == jk.implementations("eigvals") == ("cusolver", *jk.implementations("schur"))
    assert jk.implementations("resolvent_norm") == jk.implementations("refine") == ("xla",)
    assert jk.implementations("singular_values") == ("lapack", "bisection", "xla")
    with pytest.raises(ValueError, match="operation='svd' is unknown: use one of 'schur'"):
        jk.implementations("svd")


def test_choice_by_platform():
    for operation in ("schur", "hessenberg"):
        assert dispatch.choose(operation, "cpu").name == "lapack"
        assert dispatch.choose(operation, "tpu", "lapack").name == "lapack"
        for platform in ("cuda", "rocm", "tpu"):
            assert dispatch.choose(operation, platform).name == "xla"
    singular = {platform: dispatch.choose("singular_values", platform).name for platform in dispatch.PLATFORMS}
    assert singular == {"cpu": "lapack", "cuda": "xla", "rocm": "xla", "tpu": "bisection"}
    for platform in dispatch.PLATFORMS:
        assert dispatch.choose("resolvent_norm", platform).name == "xla"
    with pytest.raises(
        ValueError,
        match="implementation='cusolver' is unknown for 'schur': use one of 'lapack', 'divide', 'pallas', 'wavefront', "
        "'xla', or None",
    ):
        dispatch.choose("schur", "cuda", "cusolver")


@pytest.mark.parametrize(
    ("platform", "n", "batch", "left", "traced", "name"),
    [
        ("cuda", 512, 1, True, True, "divide"),
        ("tpu", 4096, 4, False, False, "divide"),
        ("cuda", 511, 64, False, False, "wavefront"),
        ("cuda", 256, 16, False, False, "cusolver"),
        ("cuda", 256, 17, False, False, "wavefront"),
        ("cuda", 256, 16, True, False, "wavefront"),
        ("cuda", 256, 16, False, True, "wavefront"),
        ("cuda", 31, 64, True, True, "xla"),
        ("tpu", 256, 1, False, False, "pallas"),
        ("tpu", 8, 1000, True, True, "pallas"),
        ("tpu", 257, 1, False, False, "wavefront"),
        ("cpu", 4096, 1, False, False, "lapack"),
    ],
)
def test_choice_by_order_batch_and_what_is_asked_for(platform, n, batch, left, traced, name):
    case = dispatch.Case(n, batch, left, traced)
    assert dispatch.choose("eig", platform, case=case).name == name
    assert dispatch.choose("schur", platform, case=case).name == ("wavefront" if name == "cusolver" else name)


@pytest.mark.parametrize(
    ("platform", "dtype", "name"),
    [
        ("tpu", "float32", "pallas"),
        ("tpu", "complex64", "wavefront"),
        ("cuda", "float64", "wavefront"),
        ("cuda", "complex128", "wavefront"),
    ],
)
def test_choice_by_the_type_of_the_numbers(platform, dtype, name):
    case = dispatch.case_of(np.ones((3, 64, 64), dtype))
    assert case.dtype == dtype
    assert dispatch.choose("schur", platform, case=case).name == name


def test_case_of_an_array():
    expected = dispatch.Case(5, 6, left=True, traced=False, dtype="complex64")
    assert dispatch.case_of(np.ones((2, 3, 5, 5), np.complex64), left=True) == expected
    seen = []
    jax.jit(lambda A: seen.append(dispatch.case_of(A)) or A)(jnp.ones((4, 4)))
    assert seen == [dispatch.Case(4, 1, left=False, traced=True, dtype="float64")]


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_a_type_that_a_platform_lacks_is_refused_with_what_to_do(dtype, monkeypatch):
    case = dispatch.Case(5, 1, traced=False, dtype=dtype)
    for name in (None, "xla", "divide"):
        with pytest.raises(NotImplementedError, match=rf"for {dtype} on platform 'tpu'.*residual='double-single'"):
            dispatch.choose("schur", "tpu", name, case=case)
    assert dispatch.choose("schur", "tpu", "lapack", case=case).name == "lapack"
    single = dispatch.Case(5, 1, dtype="float32")
    assert dispatch.choose("schur", "tpu", case=single).name == "pallas"
    assert dispatch.choose("schur", "cuda", case=case).name == "xla"
    eye = jnp.eye(2, dtype=dtype)
    from jaxdyn_kernels.hessenberg import api as hessenberg
    from jaxdyn_kernels.refine import api as refine
    from jaxdyn_kernels.reorder import api as reorder
    from jaxdyn_kernels.resolvent import api as resolvent

    calls = {
        hessenberg: lambda: jk.hessenberg(eye),
        refine: lambda: jk.refine(eye, eye, eye),
        reorder: lambda: jk.reorder(eye, eye, order=[1, 2]),
        resolvent: lambda: jk.resolvent_norm(eye, np.array([1j])),
    }
    for module, call in calls.items():
        monkeypatch.setattr(module, "platform_of", lambda A: "tpu")
        with pytest.raises(NotImplementedError, match=f"{dtype} on platform 'tpu'"):
            call()
    single = np.eye(2, dtype=np.float32)
    with pytest.raises(NotImplementedError, match="'refine' has no implementation for float64 on platform 'tpu'"):
        jk.refine(single, single, single, residual="float64")


def test_a_named_implementation_that_cannot_run_is_refused_with_those_that_can():
    with pytest.raises(
        NotImplementedError, match=r"'cusolver' does not run .* 'cpu' .*: use one of 'lapack', 'divide'"
    ):
        jk.eig(np.eye(3, dtype=np.float32), implementation="cusolver")


def test_an_implementation_may_be_for_some_types(monkeypatch):
    only = dispatch.Implementation("only", ".none", ("cuda",), "", "", dispatch.When(("cuda",), types=("float32",)))
    monkeypatch.setitem(dispatch.TABLE, "hessenberg", (only, *dispatch.TABLE["hessenberg"]))
    for dtype, name in (("float32", "only"), ("float64", "xla")):
        assert dispatch.choose("hessenberg", "cuda", case=dispatch.Case(4, 1, dtype=dtype)).name == name
    rows = [(row.implementation, row.when) for row in jk.describe(("cuda",)) if row.operation == "hessenberg"]
    assert rows == [("only", "float32"), ("xla", "")]
    # Types that the platform does not have are not named as if it had.
    both = dispatch.When(("tpu",), types=("float32", "float64"))
    some = dispatch.Implementation("some", ".none", ("tpu",), "", "", both)
    monkeypatch.setitem(dispatch.TABLE, "hessenberg", (some, *dispatch.TABLE["hessenberg"]))
    rows = [(row.implementation, row.when) for row in jk.describe(("tpu",)) if row.operation == "hessenberg"]
    assert rows[1:] == [("some", "float32"), ("xla", "")]


def test_cusolver_is_called_on_the_device_and_has_no_left_vectors(monkeypatch):
    """The program for CUDA calls cuSOLVER, with no callback and nothing of LAPACK's."""
    from jax._src.lax import linalg  # its plugin, which tells the version, is not installed here

    monkeypatch.setattr(linalg, "cuda_versions", type("Versions", (), {"cusolver_get_version": lambda: 11701}))
    A = jax.ShapeDtypeStruct((3, 20, 20), jnp.float32)
    for function in (jk.eig, jk.eigvals):
        traced = jax.jit(lambda A, f=function: f(A, implementation="cusolver")).trace(A)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert "cusolver_geev" in text
        for word in ("callback", "lapack", "hybrid"):
            assert word not in text
    with pytest.raises(ValueError, match="'cusolver' has no left vectors: use implementation='xla'"):
        jax.eval_shape(lambda A: jk.eig(A, left=True, implementation="cusolver"), A)


def test_cusolvers_answer_is_certified(monkeypatch):
    """With an answer in its place: eigenvalues scaled back, a residual, NaN for the matrix that is not finite."""
    from jaxdyn_kernels.eig import api, cusolver

    monkeypatch.setattr(cusolver, "eig", lambda A: jax.lax.linalg.eig(A, compute_left_eigenvectors=False))
    A = np.random.default_rng(0).standard_normal((2, 6, 6)) * 1e200
    A[1, 0, 0] = np.inf
    found = api._eig(jnp.asarray(A), left=False, balance=True, implementation="cusolver")
    assert found.status.tolist() == [jk.Status.OK, jk.Status.NONFINITE_INPUT]
    assert np.allclose(np.sort_complex(found.eigenvalues[0]), np.sort_complex(np.linalg.eigvals(A[0])), rtol=1e-9)
    assert found.residual[0] <= 20
    assert np.all(np.isnan(found.right[1]))
    values = api._eigvals(jnp.asarray(A), balance=False, implementation="cusolver")
    assert np.allclose(values[0], found.eigenvalues[0], rtol=1e-9)
    monkeypatch.setattr(cusolver, "eig", lambda A: (jnp.ones(A.shape[:-1], complex), jnp.eye(6) + 0j * A))
    wrong = api._eig(jnp.asarray(A), left=False, balance=False, implementation="cusolver")
    assert wrong.residual[0] > 1e3


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
    by = {(row.operation, row.platform): row for row in rows}  # the last row: what runs for every case
    assert len(by) == 8 * len(dispatch.PLATFORMS)
    tried = [(row.implementation, row.when) for row in rows if (row.operation, row.platform) == ("eig", "cuda")]
    assert tried == [
        ("cusolver", "n < 512, at most 16 matrices, right vectors only, outside jit"),
        ("divide", "n >= 512"),
        ("wavefront", "n >= 32, n < 512"),
        ("xla", ""),
    ]
    tried = [(row.implementation, row.when) for row in rows if (row.operation, row.platform) == ("schur", "tpu")]
    assert tried[1:3] == [("divide", "n >= 512"), ("pallas", "n < 257, float32")]
    assert tried[3:] == [("wavefront", "n >= 32, n < 512"), ("xla", "")]
    assert by["schur", "cpu"].implementation == "lapack"
    assert "inside your own jit" in by["eig", "cpu"].note
    assert "3 BLAS threads (from the environment)" in by["eig", "cpu"].note
    assert by["eig", "tpu"].implementation == by["hessenberg", "cuda"].implementation == "xla"
    assert "shifted QR" in by["eig", "tpu"].note
    assert by["resolvent_norm", "tpu"].implementation == "xla"
    (refused,) = [row for row in rows if (row.operation, row.platform, row.implementation) == ("eig", "tpu", None)]
    assert refused.when == "float64 or complex128"
    assert "double-single" in refused.note
    assert {row.platform for row in jk.describe(("cuda",))} == {"cuda"}
    assert [row.implementation for row in rows if row.platform == "cpu" and row.operation == "eig"] == ["lapack"]


def test_describe_says_why_nothing_would_run(monkeypatch):
    monkeypatch.setitem(dispatch.TABLE, "schur", dispatch.TABLE["schur"][:1])
    (row,) = [row for row in jk.describe(("cuda",)) if row.operation == "eig" and not row.when]
    assert row.implementation is None
    assert "LAPACK runs on the host only" in row.note


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_what_claims_to_run_everywhere_lowers_everywhere(platform):
    """Every operation: no host callback, no custom call of another platform, no float64 in the float32 path."""
    T = jax.ShapeDtypeStruct((2, 40, 40), jnp.float32)
    z = jax.ShapeDtypeStruct((5,), jnp.complex64)

    def everything(T, z):
        forms = (
            jk.schur(T, implementation="xla"),
            jk.hessenberg(T, implementation="xla"),
            jk.schur(jnp.tile(T, (1, 2, 2)), implementation="divide"),
            jk.reorder(T, T, order=jnp.diagonal(T, axis1=1, axis2=2)),
        )
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
