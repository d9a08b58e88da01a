"""`analyze`: a whole run from Python, in memory or kept in a folder."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from jaxdyn.errors import InputError
from jaxdyn.models.model import Model
from jaxdyn.store import open_results

from .initial import check_init, run_init
from .progress import Progress
from .run import run
from .settings import Settings


def analyze(
    model: Model,
    texts: Sequence[str] | str,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    compare_init: int = 0,
    **settings: Any,
) -> xr.Dataset:
    """Measure the spectra of a model's blocks over texts, each measure beside its null.

    Parameters
    ----------
    model : from `load`.
    texts : prompts; one string is one prompt.
    out : folder for `results.zarr` and `config.yaml`; None keeps nothing on disk.
    resume : go on with the store in `out`, which must have been made with the same settings.
    compare_init : so many random initialisations go through the same run, into `out/init.zarr` (rung N5); 5 or more, or
        0 for none. Needs `out`.
    **settings : fields of `Settings` (operator, derivative, tokens, layers, parts, draws, seed, ...).

    Returns
    -------
    xarray.Dataset (part, layer, sample, ...), in memory: what the command line stores. The averaged Jacobian, the
    running products and the relative metric are groups of the store: `open_tree(out / "results.zarr")`.

    Raises
    ------
    InputError : what cannot be read or run. StoreError : a store that is in the way, or of other settings.

    Notes
    -----
    Cost a matrix: a Schur form, two singular value decompositions and the eigenvectors, about 60 n^3 operations; the
    null N1 costs `draws` times as much. Source: methods.md 1.1-1.8.
    """
    prompts = [texts] if isinstance(texts, str) else list(texts)
    given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
    chosen = Settings(**given)
    if compare_init and out is None:
        msg = f"compare_init: got {compare_init} without out, the folder that keeps it; give out, or leave it out"
        raise InputError(msg)
    with tempfile.TemporaryDirectory() as scratch:
        place, quiet = Path(out or scratch), Progress(enabled=False)
        if compare_init:
            check_init(place, chosen, compare_init, resume=resume)
        outcome = run(model, prompts, chosen, out=place, resume=resume, progress=quiet)
        if compare_init:
            run_init(model.outline(), prompts, chosen, compare_init, out=place, resume=resume, progress=quiet)
        return open_results(outcome.store).load()
