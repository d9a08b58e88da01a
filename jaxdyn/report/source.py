"""Stage 7 of 7: a store as the report sees it: its finished samples, its name, the commands that made it."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from jaxdyn.errors import InputError
from jaxdyn.store import StoreError, open_tree

from .captions import UNKNOWN, setting
from .initial import Initial, open_initial
from .profiles import done_samples

FORMATS = ("png", "svg")
"""Endings of the figure files."""

STORE = "results.zarr"
"""Name in the folder of a run; beside it may lie `init.zarr`, the same run at random initialisation (N5)."""


@dataclass(frozen=True)
class Source:
    """One store of a report.

    Attributes
    ----------
    tree : the whole store.
    root : its samples that are done.
    label : what it is called; with two stores "A: ..." and "B: ...".
    tag : "A" or "B" in names of lines and panels where two stores are shown, else "".
    folder : where it lies; None for a tree that was handed over.
    init : the same run at random initialisation, where it was asked for.
    """

    tree: xr.DataTree
    root: xr.Dataset
    label: str = ""
    folder: Path | None = None
    init: Initial | None = None
    tag: str = ""

    @property
    def width(self) -> int:
        """Width n of the model; 0 where the store keeps no eigenvalues."""
        return int(self.root.sizes.get("eig", 0))

    @property
    def suffix(self) -> str:
        """What follows the name of a line: ", A" where two stores are shown."""
        return f", {self.tag}" if self.tag else ""

    @property
    def prefix(self) -> str:
        """What precedes the title of a panel: "A, " where two stores are shown."""
        return f"{self.tag}, " if self.tag else ""

    def progress(self) -> str:
        """Say in one line how many samples are done."""
        total, done = self.tree.to_dataset().sizes["sample"], self.root.sizes["sample"]
        state = "complete" if done == total else "not finished"
        beside = f"; N5: {len(self.init.seeds)} of {self.init.wanted} seeds done" if self.init else ""
        return f"{self.label}: {done} of {total} samples done, {state}{beside}"

    def group(self, name: str) -> xr.Dataset | None:
        """Return a group of the store that has data, else None (an unfinished run has no averages)."""
        if name not in self.tree.children:
            return None
        found = self.tree[name].to_dataset()
        return found if found.data_vars else None


def of_tree(tree: xr.DataTree) -> Source:
    """Wrap one store, opened by `jaxdyn.store.open_tree`; refuses one without a finished sample."""
    root = done_samples(tree)
    return Source(tree, root, model_name(root))


def open_sources(folders: Sequence[str | Path]) -> list[Source]:
    """Open the stores of one or two runs.

    Parameters
    ----------
    folders : folders that hold results.zarr, or the stores themselves.

    Raises
    ------
    InputError : more than two folders or none, one folder twice, a folder without a store, a store without a finished
        sample.
    """
    if not 1 <= len(folders) <= 2:
        msg = f"folders: got {len(folders)}; allowed one, or two to be overlaid; make further reports for the others"
        raise InputError(msg)
    places = [_store_of(Path(folder)) for folder in folders]
    if len({place.resolve() for place in places}) < len(places):
        msg = f"folders: got {places[0].parent} twice; give two different runs, or one alone"
        raise InputError(msg)
    found = [_open(place) for place in places]
    names = [model_name(root) for _, root in found]
    same = len(set(names)) < len(names)
    tags = ("A", "B") if len(names) == 2 else ("",)
    sources = []
    for place, name, tag, (tree, root) in zip(places, names, tags, found, strict=True):
        own = f"{name} ({place.parent.resolve().name})" if same else name
        label = f"{tag}: {own}" if tag else own
        sources.append(Source(tree, root, label, place.parent, open_initial(place.parent, root), tag))
    return sources


def parse_formats(text: str) -> tuple[str, ...]:
    """Read "png,svg"."""
    chosen = tuple(dict.fromkeys(piece.strip() for piece in text.split(",")))
    if unknown := [ending for ending in chosen if ending not in FORMATS]:
        msg = f"formats: got {unknown[0]!r}; allowed {', '.join(FORMATS)}, or both with a comma between"
        raise InputError(msg)
    return chosen


def model_name(root: xr.Dataset) -> str:
    """Last part of a local model folder, or the hub id as it is."""
    source = str(setting(root, "model") or UNKNOWN)
    return Path(source).name if source.startswith((".", "/", "~")) else source


def provenance(root: xr.Dataset) -> dict[str, Any]:
    """Where the store comes from: versions, device, commit, date, command, corpus."""
    return json.loads(str(root.attrs.get("provenance", "{}")))


def corpus(root: xr.Dataset) -> str:
    """Name of the texts' file and the start of their hash, as far as the store records them."""
    name, digest = provenance(root).get("corpus"), setting(root, "texts_hash")
    known = f"sha256 {str(digest)[:12]}" if digest else ""
    if name:
        return f"{name} ({known})" if known else str(name)
    return f"texts of {known}" if known else UNKNOWN


def one_line(source: Source) -> str:
    """Say in one line what was measured: model and revision, corpus, samples, operator, metric."""
    root = source.root
    revision = str(setting(root, "model_revision") or "")
    model = f"{setting(root, 'model') or UNKNOWN}" + (f" @ {revision}" if revision else "")
    digest = str(setting(root, "model_hash") or "")
    total, done = source.tree.to_dataset().sizes["sample"], root.sizes["sample"]
    samples = f"{done} samples" if done == total else f"{done} of {total} samples, the run is not finished"
    prompts = f"{len(np.unique(root['prompt'].values))} prompts" if "prompt" in root.coords else ""
    return " · ".join(
        part
        for part in (
            model + (f" (weights {digest[:12]})" if digest else ""),
            corpus(root),
            f"{samples}" + (f" of {prompts}" if prompts and done == total else ""),
            f"{setting(root, 'operator') or UNKNOWN} Jacobian, {setting(root, 'derivative') or UNKNOWN} derivative",
            f"{setting(root, 'metric') or UNKNOWN} metric",
        )
        if part
    )


def commands(sources: Sequence[Source]) -> list[str]:
    """Command lines that made the stores and the figures; a store written from Python says so."""
    lines = []
    for source in sources:
        made = provenance(source.root).get("command")
        if not made:
            operator, tokens = setting(source.root, "operator"), setting(source.root, "tokens")
            made = f"# {source.label}: written by jaxdyn.analyze(..., operator={operator!r}, tokens={tokens!r})"
        lines.append(str(made))
    if folders := [str(source.folder) for source in sources if source.folder is not None]:
        lines.append(shlex.join(["jaxdyn", "report", *folders]))
    return lines


def differences(sources: Sequence[Source]) -> str:
    """Say in what two stores differ that decides what may be compared; empty for one store or none of these."""
    if len(sources) < 2:
        return ""
    first, second = sources
    said = []
    for name in ("operator", "derivative", "metric", "tokens", "bos", "texts_hash"):
        one, two = (str(setting(source.root, name) or UNKNOWN) for source in (first, second))
        if one != two:
            said.append(f"{name.replace('_', ' ')} ({one[:12]}, {two[:12]})")
    if first.width != second.width:
        said.append(f"width ({first.width}, {second.width}): ranks and null levels depend on it, so compare the excess")
    layers = [source.root["layer"].values.tolist() for source in (first, second)]
    if layers[0] != layers[1]:
        said.append(f"layers ({len(layers[0])}, {len(layers[1])}): profiles are drawn against the block's number")
    return f"The two stores differ in {'; '.join(said)}." if said else ""


def _store_of(folder: Path) -> Path:
    """Return the store in a folder, or the folder where it is itself one."""
    if not folder.exists():
        msg = f"folder: nothing at {folder}; give the --out folder of a run of `jaxdyn analyze`"
        raise InputError(msg)
    if (folder / STORE).exists():
        return folder / STORE
    if (folder / "zarr.json").is_file():
        return folder
    msg = f"folder: {folder} holds no {STORE}; give the --out folder of a run of `jaxdyn analyze`, or run it first"
    raise InputError(msg)


def _open(place: Path) -> tuple[xr.DataTree, xr.Dataset]:
    if place.is_dir() and not (place / "zarr.json").is_file():
        msg = f"folder: {place} is not a jaxdyn store (it holds no zarr.json); give the --out folder of a run"
        raise InputError(msg)
    tree = open_tree(place)
    try:
        return tree, done_samples(tree)
    except InputError as error:
        msg = f"{place}: {error}"
        raise StoreError(msg, page=error.page) from error
