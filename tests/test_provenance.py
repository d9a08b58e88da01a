"""What a store says of its origin."""

import json
import subprocess

import numpy as np
import zarr

from jaxdyn import provenance


def test_provenance_names_versions_device_and_flags():
    record = provenance.provenance(model_hash="ab", dtype="float32")
    assert record["version_zarr"] == zarr.__version__
    assert record["version_numpy"] == np.__version__
    assert record["x64"] is True
    assert record["platform"] == "cpu"
    assert record["model_hash"] == "ab"
    assert provenance.bits().items() <= record.items()
    assert "date" not in provenance.bits()
    json.dumps(record)


def test_commit_is_that_of_the_checkout_with_its_changes(tmp_path):
    assert provenance.commit(tmp_path) is None
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("1")
    for arguments in (["init", "-q"], ["add", "file"], [*identity, "commit", "-qm", "one"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    head = provenance.commit(tmp_path)
    assert head is not None
    assert len(head) == 40
    (tmp_path / "file").write_text("2")
    assert provenance.commit(tmp_path) == f"{head}+changes"
