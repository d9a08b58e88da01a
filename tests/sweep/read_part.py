"""How much of a copy one process of several reads: `... read_part FOLDER LAYOUT PROCESS COUNT HOST:PORT`."""

import json
import sys
from pathlib import Path

import jax

from jaxdyn import application
from jaxdyn.models import orbax_copy, weights
from jaxdyn.sharding import LAYOUTS, mesh_for


def bytes_read() -> int:
    """Bytes that this process has read so far, from files and from what they are kept in."""
    return int(Path("/proc/self/io").read_text().split()[1])


def main(folder: str, layout: str, process: int, count: int, address: str) -> None:
    import orbax.checkpoint  # noqa: F401 - modules are read before anything is counted

    application.join(address, process, count, local=True, lockstep=True)
    jax.block_until_ready(jax.numpy.zeros(3))
    hashed, real = [], orbax_copy._hash

    def counted(path: Path) -> str:
        hashed.append(path.stat().st_size)
        return real(path)

    orbax_copy._hash = counted
    before = bytes_read()
    mesh = mesh_for(layout, model=count if layout == "tensor" else 1)
    model = weights.load(folder, mesh=mesh, rules=LAYOUTS[layout])
    leaves = jax.tree.leaves(model.params)
    size = sum(leaf.nbytes for leaf in leaves)
    own = sum(shard.data.nbytes for leaf in leaves for shard in leaf.addressable_shards)
    read = bytes_read() - before - sum(hashed)
    total = float(sum(jax.numpy.sum(leaf) for leaf in leaves))
    print(json.dumps({"read": read / size, "hashed": sum(hashed) / size, "own": own / size, "total": total}))
    application.leave()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
