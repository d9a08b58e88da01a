"""Stage 6 of 7: `init.zarr`, a Zarr group of stores beside `results.zarr`: one a random initialisation (null N5)."""

import json
from pathlib import Path

from . import files
from .files import StoreError, reported

INIT = "init.zarr"
"""Its name beside the store of the trained model."""

KEY = "jaxdyn_init_seeds"


def member(seed: int) -> str:
    """Name of a seed's store in the group."""
    return f"seed-{seed}"


def seeds_of(place: Path) -> list[int]:
    """Seeds that the group was made for, in order; empty where nothing is there.

    Raises
    ------
    StoreError : what is there is something else, or cannot be read.
    """
    with reported(place, "open"):
        if not place.exists() or (place.is_dir() and all(one.suffix == ".partial" for one in place.iterdir())):
            return []
        try:
            return [int(seed) for seed in json.loads((place / "zarr.json").read_text())["attributes"][KEY]]
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError) as error:
            msg = f"{place} is not a group of random initialisations; nothing was touched; choose another folder"
            raise StoreError(msg) from error


def write_seeds(place: Path, seeds: list[int]) -> None:
    """Create the group, or replace the list of its seeds in one rename."""
    attributes = {KEY: seeds, "title": "jaxdyn: the same run at random initialisation (N5), one store a seed"}
    with reported(place, "create"):
        place.mkdir(parents=True, exist_ok=True)
        files.write_durably(place / "zarr.json", json.dumps(files.group_metadata(attributes)).encode())
