"""Stage 6 of 7: results.zarr, written a unit at a time so that a killed run loses at most the unit it was in.

The store is a Zarr 3 group that xarray opens. Three rules make it safe to kill:

1. It is built in a folder beside its final name and renamed into place: it exists whole or not at all.
2. Units own their chunk files. `Store.write` comes back when a unit's chunks are durable; `Store.commit` then writes
   the unit's chunk of the variable `done(sample)` by an atomic rename: that chunk is the unit's marker.
3. The root's metadata are consolidated and replaced in one rename, so readers never list folders and never see the
   traces of an interrupted write.

Resuming repeats the unfinished units with the stored settings: the bytes are those of a run that was never killed.
"""

from .files import StoreError
from .opening import (
    Progress,
    create,
    describe,
    done_units,
    is_complete,
    open_for_resume,
    open_results,
    open_tree,
    start,
)
from .schema import Coordinate, Schema, Variable
from .writer import Store

__all__ = [
    "Coordinate",
    "Progress",
    "Schema",
    "Store",
    "StoreError",
    "Variable",
    "create",
    "describe",
    "done_units",
    "is_complete",
    "open_for_resume",
    "open_results",
    "open_tree",
    "start",
]
