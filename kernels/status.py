"""Status: what happened to each matrix of a batch, as data, so that it survives jit and needs no exception."""

from enum import IntEnum


class Status(IntEnum):
    """Outcome of one decomposition, an int32 per matrix; anything but OK comes with NaN in every value.

    ``Status(int(code)).message`` says what happened, the likely causes and what to try.
    """

    OK = 0
    NOT_CONVERGED = 1
    NONFINITE_INPUT = 2
    OVERFLOW = 3

    @property
    def message(self) -> str:
        """What happened, why, and what to do."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.OK: "the decomposition converged and every value is finite",
    Status.NOT_CONVERGED: (
        "the QR iteration did not converge; the matrix is unusual (LAPACK allows 30 n sweeps): "
        "repeat it in float64, or add a random perturbation of relative size eps"
    ),
    Status.NONFINITE_INPUT: (
        "the matrix holds NaN or infinity; look for an overflow upstream (half-precision weights, a division by a "
        "zero norm) and repeat that step in a wider type"
    ),
    Status.OVERFLOW: (
        "the matrix is finite but its Schur form is not: entries within a factor n of the largest number; "
        "divide the matrix by a power of two and multiply the eigenvalues afterwards"
    ),
}
