"""Stage 1 of 7: layers of several sizes in leaves of one: which entries of a stacked leaf a layer really has.

The scan over layers needs leaves of one shape. Where heads or MLPs of some layers are smaller (Gemma 4), their weights
are padded with zeros, and what a layer does not have at all (keys and values of one that shares another's) is zeros.
Zeros leave every product as it is, and stay zeros under gradient descent. A head is padded in each of its halves, so
that the pairs RoPE turns stay pairs; the head norms divide by the true size.
"""

import numpy as np

from jaxdyn.models.architecture import Architecture

KEYS_VALUES = ("attention/k", "attention/v", "attention/k_bias", "attention/v_bias", "attention/k_norm/scale")
Entries = tuple[np.ndarray, ...]


def real_entries(arch: Architecture, path: str, layer: int) -> Entries | None:
    """Return the index (as by ``numpy.ix_``) of the entries of a block leaf that a layer has; None is all of them.

    Parameters
    ----------
    arch
        The description of the decoder.
    path
        A path of ``parameters.shapes`` under "blocks/".
    layer
        The block's number.
    """
    name = path.removeprefix("blocks/")
    if name in KEYS_VALUES and arch.shares(layer):
        return np.ix_(*[np.zeros(0, int)] * (1 if name.endswith(("bias", "scale")) else 2))
    kind = arch.kinds[layer]
    group, leaf = name.split("/", 1)
    if group == "attention" and kind.head_dim < arch.head_dim and leaf != "o_bias":
        index = _head_entries(arch, leaf, kind.head_dim)
    elif group == "mlp" and kind.ff_dim < arch.ff_dim and leaf != "down_bias":
        index = np.arange(kind.ff_dim)
    else:
        return None
    if leaf in ("o", "down"):
        return np.ix_(np.arange(arch.width), index)
    return np.ix_(index) if leaf.endswith(("bias", "scale")) else np.ix_(index, np.arange(arch.width))


def real_shape(arch: Architecture, path: str, layer: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of what a layer has of a block leaf of this shape; zeros where it has nothing."""
    entries = real_entries(arch, path, layer)
    return shape if entries is None else tuple(one.size for one in entries)


def _head_entries(arch: Architecture, leaf: str, size: int) -> np.ndarray:
    """Rows (of the output map: columns) of smaller heads: the first half of a head at 0, the second at K / 2."""
    head = np.concatenate([np.arange(size // 2), arch.head_dim // 2 + np.arange(size // 2)])
    if leaf.startswith(("q_norm", "k_norm")) and arch.qk_norm == "head":
        heads = 1
    else:
        heads = arch.heads if leaf.startswith(("q", "o")) else arch.kv_heads
    return (np.arange(heads)[:, None] * arch.head_dim + head).reshape(-1)
