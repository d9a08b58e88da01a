"""Stage 5 of 7: what a block would be without its non-normal part - Schur interventions, their controls, their effect.

`prepare` and `surrogate` make the matrices, `surrogate_study` puts them into the product along depth and splits each
effect, `order_study` sweeps the order of the eigenvalues that a partial intervention depends on.
"""

from .by_name import SURROGATES, Prepared, prepare, reordered, surrogate
from .effects import Effect, ProductRanks, effect_on_effective_rank, effect_on_participation_ratio, product_ranks
from .order import ORDERS, reorder
from .sites import SITES, layer_sets
from .split import SchurSplit, complex_form, intervene, normal_end, schur_split
from .study import ORDER_SWEEP, SurrogateSettings, order_study, surrogate_study

__all__ = [
    "ORDERS",
    "ORDER_SWEEP",
    "SITES",
    "SURROGATES",
    "Effect",
    "Prepared",
    "ProductRanks",
    "SchurSplit",
    "SurrogateSettings",
    "complex_form",
    "effect_on_effective_rank",
    "effect_on_participation_ratio",
    "intervene",
    "layer_sets",
    "normal_end",
    "order_study",
    "prepare",
    "product_ranks",
    "reorder",
    "reordered",
    "schur_split",
    "surrogate",
    "surrogate_study",
]
