"""Stage 5 of 7: the null ladder N0 to N7 for any measure of any array of matrices, and which rung explains a number.

Each rung is a function that returns a `Null`: draws, mean, standard deviation and number of seeds of a measure, given
by name or as a function. `excess` compares a measurement with it, `explain` goes up the ladder. The closed forms and
the draws that a pipeline uses inside its programs are in `jaxdyn.measures.nulls`.
"""

from .n0_dimension import n0
from .n1_singular_values import n1
from .n2_rotated import n2, rotated
from .n3_free import FreeLaw, free_law, n3
from .n4_weights import n4, replaced_weights
from .n5_initial import n5
from .n6_halves import n6, n6_of_mean
from .n7_depth import depth_trend, monotone_share, n7, spearman, trend_test
from .named import PRODUCT, cross_layer_overlap, measured
from .null import Excess, Null, excess
from .sign_flips import sign_flip_test
from .verdict import explain

RUNGS = {
    "N0": "dimension, mean scaling and norm",
    "N1": "trace and singular values of each layer",
    "N2": "spectrum of each layer, without alignment between layers",
    "N3": "singular values of each layer, by the free-product law",
    "N4": "spectra of the weights, trained norms, real activations",
    "N5": "architecture and initialisation",
    "N6": "sampling noise: a floor, no explanation",
    "N7": "autocorrelation along depth",
}
"""What each rung explains."""

__all__ = [
    "PRODUCT",
    "RUNGS",
    "Excess",
    "FreeLaw",
    "Null",
    "cross_layer_overlap",
    "depth_trend",
    "excess",
    "explain",
    "free_law",
    "measured",
    "monotone_share",
    "n0",
    "n1",
    "n2",
    "n3",
    "n4",
    "n5",
    "n6",
    "n6_of_mean",
    "n7",
    "replaced_weights",
    "rotated",
    "sign_flip_test",
    "spearman",
    "trend_test",
]
