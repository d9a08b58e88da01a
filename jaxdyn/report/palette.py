"""Stage 7 of 7: one colour and one mark a role, for files and page alike.

Colours are from Okabe and Ito's palette, which readers with any colour vision can tell apart; in the dark they are
lighter. Measured data are solid and blue (vermillion in a second store), N1 is grey, N0 thin and dashed, N3 green.
"""

from .chart import ROLES

LIGHT = {
    "measured": "#0072B2",
    "fan": "#56B4E9",
    "means": "#E69F00",
    "trace": "#C9C9C9",
    "singular": "#8A8A8A",
    "orientation": "#0072B2",
    "biased": "#56B4E9",
    "floor": "#8A8A8A",
    "N0": "#000000",
    "N1": "#8A8A8A",
    "N3": "#009E73",
    "N5": "#B0568B",
    "front": "#000000",
    "linear": "#8A8A8A",
    "rotated": "#009E73",
    "points": "#0072B2",
    "null": "#8A8A8A",
    "variant1": "#E69F00",
    "variant2": "#009E73",
    "variant3": "#B0568B",
    "variant4": "#8A8A8A",
    "variant5": "#D55E00",
    "variant6": "#56B4E9",
    "skip": "#E69F00",
    "shuffled": "#8A8A8A",
    "walk": "#8A8A8A",
    "jacobian": "#D55E00",
    "displaced": "#E69F00",
    "frozen": "#56B4E9",
    "ablated": "#8A8A8A",
    "N2": "#009E73",
}
DARK = {
    "measured": "#5FB7F0",
    "fan": "#3A83B5",
    "means": "#F0B440",
    "trace": "#565B62",
    "singular": "#9097A0",
    "orientation": "#5FB7F0",
    "biased": "#3A83B5",
    "floor": "#9097A0",
    "N0": "#E8EAED",
    "N1": "#9097A0",
    "N3": "#38C9A0",
    "N5": "#DE9CC4",
    "front": "#E8EAED",
    "linear": "#9097A0",
    "rotated": "#38C9A0",
    "points": "#5FB7F0",
    "null": "#9097A0",
    "variant1": "#F0B440",
    "variant2": "#38C9A0",
    "variant3": "#DE9CC4",
    "variant4": "#9097A0",
    "variant5": "#FF8A3D",
    "variant6": "#3A83B5",
    "skip": "#F0B440",
    "shuffled": "#9097A0",
    "walk": "#9097A0",
    "jacobian": "#FF8A3D",
    "displaced": "#F0B440",
    "frozen": "#3A83B5",
    "ablated": "#9097A0",
    "N2": "#38C9A0",
}
SECOND_LIGHT = {"measured": "#D55E00", "fan": "#E9A06B", "orientation": "#D55E00", "biased": "#E9A06B"}
"""Of the second of two overlaid stores; other roles keep their colour and are drawn thinner."""

SECOND_DARK = {"measured": "#FF8A3D", "fan": "#B8672F", "orientation": "#FF8A3D", "biased": "#B8672F"}

assert LIGHT.keys() == DARK.keys() == set(ROLES)


def colour(role: str, store: int = 0) -> str:
    """Return the colour of a role on white."""
    return SECOND_LIGHT.get(role, LIGHT[role]) if store else LIGHT[role]


def style_sheet() -> str:
    """Give the colours as CSS variables --measured, --measured-2, ..., light and dark."""
    light = _variables(LIGHT, "") + _variables(SECOND_LIGHT, "-2")
    dark = _variables(DARK, "") + _variables(SECOND_DARK, "-2")
    return f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"


def _variables(colours: dict[str, str], suffix: str) -> str:
    return "".join(f"--{role}{suffix}:{value};" for role, value in colours.items())
