"""Stage 5 of 7: rung N5 - the architecture at random initialisation, through the same operator on the same tokens.

"Learned" depends on the operator: the product's rank at initialisation was 12 isolated and 54 in context in one model
(1.7). `jaxdyn analyze --compare-init` does this for a whole run; here it is any measure, products among them.
"""

from jaxdyn.activations import Prompts, capture
from jaxdyn.errors import InputError
from jaxdyn.jacobians import jacobian_stack
from jaxdyn.jacobians.request import Derivative, Operator, Part
from jaxdyn.models import Model

from .draw import of_draws
from .named import Measure
from .null import Null

FEWEST = 5
"""Seeds below which the spread between them says too little: a 95 % interval of 4 is 3.6 sd wide to each side."""


def n5(
    model: Model,
    prompts: Prompts,
    measure: Measure,
    *,
    tokens: str = "last",
    operator: Operator = "in-context",
    part: Part = "block",
    derivative: Derivative = "exact",
    seeds: int = FEWEST,
    seed: int = 0,
) -> Null:
    """Rung N5 of a measure of the blocks' Jacobians (L, S, n, n).

    Parameters
    ----------
    model : gives architecture and dtype; its weights are not used.
    prompts : the measurement's own token ids (`Activations.prompts`).
    measure : a name or a function, as in `nulls.measured`.
    tokens, operator, part, derivative : those of the measurement.
    seeds, seed : initialisations seed, seed + 1, ...; at least 5 of them.

    Returns
    -------
    Null, shared by the samples.

    Raises
    ------
    InputError : fewer than 5 seeds, an unknown measure.

    References
    ----------
    1.7 N5.
    """
    if seeds < FEWEST:
        msg = f"seeds: got {seeds}; allowed {FEWEST} or more, or the spread between the seeds says too little"
        raise InputError(msg, page="docs/nulls.md")

    def make(draw: int):
        random = model.initialised(seed + draw)
        acts = capture(random, prompts, tokens=tokens)
        return jacobian_stack(random, acts, operator=operator, part=part, derivative=derivative)

    return Null("N5", of_draws(make, measure, seeds), shared=True)
