"""Stage 1 of 7: where a parameter comes from in a checkpoint."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Source:
    """One checkpoint tensor, or a part of it, as the source of one parameter (of one layer).

    Attributes
    ----------
    key
        Key without the family's prefix; "{layer}" stands for the block's number.
    transpose
        The checkpoint holds (in, out); we hold (out, in).
    part
        (index, count): the tensor fuses ``count`` parameters of equal size along the output axis.
    groups
        The fused parameters alternate, ``groups`` times: each turn of the tensor holds a slice of every one.
    rows
        (first, total): the parameter is the rows from ``first`` on of a tensor with ``total`` rows.
    """

    key: str
    transpose: bool = False
    part: tuple[int, int] = (0, 1)
    groups: int = 1
    rows: tuple[int, int] | None = None

    def checkpoint_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape the checkpoint's tensor must have for a parameter of this shape."""
        whole = (shape[0] * self.part[1] if self.rows is None else self.rows[1], *shape[1:])
        return whole[::-1] if self.transpose else whole

    def take(self, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Take the parameter, of this shape, out of the checkpoint's tensor: a view; a copy where parts alternate."""
        index, count = self.part
        whole = tensor.T if self.transpose else tensor
        if self.rows is not None:
            return whole[self.rows[0] : self.rows[0] + shape[0]]
        turns = whole.reshape(self.groups, count, -1, *whole.shape[1:])
        return turns[:, index].reshape(shape)
