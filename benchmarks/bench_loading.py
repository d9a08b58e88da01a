"""Peak host memory of loading a random checkpoint of 2 GB, beyond the parameters, which stay on the host here."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import Row
from benchmarks.memory import STATUS, gigabytes, reset_peak

ROOT = Path(__file__).resolve().parents[1]
LARGE = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 6,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}
SMALL = {**LARGE, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8, "vocab_size": 24000}
TINY = {**LARGE, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 64}


def run(options: Any) -> Iterator[Row]:
    """Write the checkpoint, then load it in processes of their own: as stored, cast, and split over four devices."""
    if not STATUS.exists():
        print(f"loading: not measured: needs {STATUS} (Linux)", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as scratch:
        needed = 2.5e9
        if shutil.disk_usage(scratch).free < 2 * needed:
            print(f"loading: not measured: needs {2 * needed / 1e9:.0f} GB free in {scratch}", file=sys.stderr)
            return
        folder = Path(scratch) / "model"
        size = write(folder, LARGE)
        for dtype, devices in (("float32", 1), ("bfloat16", 1), ("float32", 4)):
            found = measure(folder, dtype, devices)
            name = f"load {size / 1e9:.1f} GB as {dtype}, {devices} device{'s' * (devices > 1)}: peak beyond parameters"
            note = f"in largest tensors ({found['largest']:.2f} GB); {found['seconds']:.1f} s"
            yield Row("loading", name, found["beyond"] / found["largest"], "x", target="<= 1", note=note)


def measure(folder: Path, dtype: str, devices: int) -> dict[str, float]:
    """Load a folder in a process of its own; memory in GB."""
    command = [sys.executable, "-m", "benchmarks.bench_loading", str(folder), dtype, str(devices)]
    child = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if child.returncode:
        raise RuntimeError(child.stderr)
    return json.loads(child.stdout.splitlines()[-1])


def write(folder: Path, sizes: dict[str, Any]) -> int:
    """Write a random Llama checkpoint in float32; return the bytes of its weights."""
    import numpy as np
    from safetensors.numpy import save_file

    from jaxdyn.models import parameters
    from jaxdyn.models.families import llama

    config = {"model_type": "llama", "max_position_embeddings": 256, **sizes}
    arch = llama.architecture(config)
    table, random = llama.table(arch), np.random.default_rng(0)
    tensors = {}
    for path, shape in parameters.shapes(arch).items():
        stacked = path.startswith("blocks/")
        for layer in range(arch.layers if stacked else 1):
            key = table[path].key.format(layer=layer)
            key = key if key == "lm_head.weight" else f"model.{key}"
            tensors[key] = random.standard_normal(shape[1:] if stacked else shape, np.float32)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return (folder / "model.safetensors").stat().st_size


def child(folder: Path, dtype: str, devices: int) -> None:
    """Load once and print what it took, after a tiny model has been loaded so."""
    import os

    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    import jax

    import jaxdyn
    from jaxdyn.models import checkpoint, placement

    mesh = jax.make_mesh((devices,), ("model",)) if devices > 1 else None
    piece, placement.PIECE = placement.PIECE, 1000
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch) / "tiny", TINY)
        jaxdyn.load(Path(scratch) / "tiny", dtype=dtype, mesh=mesh)
    placement.PIECE = piece
    entries = checkpoint.open_checkpoint(folder).entries.values()
    reset_peak()
    start, clock = gigabytes("VmRSS"), time.perf_counter()
    model = jaxdyn.load(folder, dtype=dtype, mesh=mesh)
    jax.block_until_ready(model.params)
    seconds = time.perf_counter() - clock
    shards = [shard.data.nbytes for leaf in jax.tree.leaves(model.params) for shard in leaf.addressable_shards]
    stays, largest = sum(shards) / 1e9, max(entry.stop - entry.start for entry in entries) / 1e9
    beyond = gigabytes("VmHWM") - start - stays
    print(json.dumps({"stays": stays, "beyond": beyond, "largest": largest, "seconds": seconds}))


if __name__ == "__main__":
    child(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
