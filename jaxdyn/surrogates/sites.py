"""Stage 5 of 7: in which layers an intervention takes place."""

import numpy as np

from jaxdyn.errors import InputError

SITES = ("all", "early", "late", "each")


def layer_sets(layers: int, sites: tuple[str, ...] = ("all", "early", "late")) -> dict[str, np.ndarray]:
    """Return the layers of each site, (L,) of bool by name.

    Parameters
    ----------
    layers : L.
    sites : any of "all"; "early" and "late", the first and the last L // 2 layers (of an odd number the middle one is
        in neither); "each", one layer at a time, named "0", "1", ...

    Raises
    ------
    InputError : no site, an unknown one, or a half of a single layer.
    """
    unknown = [one for one in sites if one not in SITES]
    if unknown or not sites or (layers < 2 and {"early", "late"} & set(sites)):
        msg = f"sites: got {sites} of {layers} layers; allowed any of {', '.join(SITES)}, halves from 2 layers on"
        raise InputError(msg)
    number, half = np.arange(layers), layers // 2
    found = {}
    for site in sites:
        if site == "each":
            found |= {str(layer): number == layer for layer in range(layers)}
        else:
            found[site] = {"all": number >= 0, "early": number < half, "late": number >= layers - half}[site]
    return found
