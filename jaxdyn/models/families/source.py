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
    """

    key: str
    transpose: bool = False
    part: tuple[int, int] = (0, 1)

    def checkpoint_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape the checkpoint's tensor must have for a parameter of this shape."""
        whole = (shape[0] * self.part[1], *shape[1:])
        return whole[::-1] if self.transpose else whole

    def take(self, tensor: np.ndarray) -> np.ndarray:
        """Take the parameter (a view) out of the checkpoint's tensor."""
        index, count = self.part
        whole = tensor.T if self.transpose else tensor
        size = whole.shape[0] // count
        return whole[index * size : (index + 1) * size]
