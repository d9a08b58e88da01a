"""Stage 7 of 7: the figures of `dynamics.zarr`, which lies beside a run or alone; written by `jaxdyn dynamics`.

To add a figure: a function from `Dynamics` to a `Chart`, or None where its group is missing, named in `FIGURES`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import xarray as xr

from jaxdyn.errors import InputError
from jaxdyn.store import open_tree

from . import captions, dynamics_planes, dynamics_profiles, dynamics_rotation, teleport
from .alone import write_alone
from .chart import Chart

STORE = "dynamics.zarr"


@dataclass(frozen=True)
class Dynamics:
    """One store.

    Attributes
    ----------
    label : the folder's name.
    root : coordinates of points, steps and samples; attributes.
    groups : the finished stages, in memory.
    """

    label: str
    root: xr.Dataset
    groups: dict[str, xr.Dataset]

    def get(self, name: str) -> xr.Dataset | None:
        """Return a stage's results, None where it has not run."""
        return self.groups.get(name)

    def caption(self, *sentences: str) -> str:
        """Say what was measured on what, then the sentences."""
        said = self.root.attrs
        return captions.join(
            f"Model: {said.get('model', captions.UNKNOWN)}. State: the residual stream (raw, before any norm) "
            f"{said.get('points')}; N = {said.get('samples')} texts, the last token of each; BOS: {said.get('bos')}; "
            f"seed {said.get('seed')}.",
            *sentences,
        )


FIGURES: tuple[Callable[[Dynamics], Chart | None], ...] = (
    dynamics_profiles.continuity_chart,
    dynamics_planes.matrix_chart,
    dynamics_profiles.motion_chart,
    dynamics_profiles.density_chart,
    dynamics_profiles.information_chart,
    dynamics_rotation.rotation_chart,
    dynamics_rotation.portrait_chart,
    dynamics_planes.path_chart,
    dynamics_profiles.path_shape_chart,
    dynamics_profiles.autoencoder_chart,
    dynamics_profiles.dimension_chart,
    teleport.flow_chart,
    teleport.return_chart,
    teleport.contraction_chart,
    teleport.radius_chart,
    teleport.rates_chart,
)
"""Every figure, in the order of the page."""


def open_dynamics(folder: str | Path) -> Dynamics | None:
    """Open the store in a folder; None where there is none, or no stage is finished."""
    folder = Path(folder)
    if not (folder / STORE).exists():
        return None
    tree = open_tree(folder / STORE)
    groups = {str(name): node.to_dataset().load() for name, node in tree.children.items()}
    if not groups:
        return None
    root = tree.to_dataset()
    return Dynamics(folder.resolve().name, root.drop_vars([str(name) for name in root.data_vars]).load(), groups)


def dynamics_charts(folders: Sequence[Path]) -> list[Chart]:
    """Return the figures of the stores that lie in these folders; of two stores, panels stand side by side."""
    merged: dict[str, Chart] = {}
    found = [one for folder in folders if (one := open_dynamics(folder)) is not None]
    for number, one in enumerate(found):
        for figure in FIGURES:
            chart = figure(one)
            if chart is not None and len(found) > 1:
                chart = _named(chart, one.label, number)
            if chart is not None and chart.name in merged:
                first = merged[chart.name]
                panels, words = (*first.panels, *chart.panels), f"{first.caption} {chart.caption}"
                chart = replace(first, panels=panels, caption=words, groups=first.groups | chart.groups)
            if chart is not None:
                merged[chart.name] = chart
    return list(merged.values())


def write_dynamics(folder: str | Path, *, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write a page of these figures alone, and the figure files, for a folder that holds no results.zarr.

    Returns
    -------
    The files written, the page first.

    Raises
    ------
    InputError : nothing finished to show. StoreError : the folder cannot be written.
    """
    from .semanticity import semanticity_charts

    folder = Path(folder)
    one = open_dynamics(folder)
    if one is None:
        msg = f"folder: {folder} holds no finished {STORE}; run `jaxdyn dynamics --out {folder}` first"
        raise InputError(msg)
    said, told = one.root.attrs, json.loads(str(one.root.attrs.get("provenance", "{}")))
    return write_alone(
        folder,
        [*dynamics_charts([folder]), *semanticity_charts([folder])],
        formats,
        heading="Dynamics along depth",
        lines=[f"{said.get('model')} · {told.get('corpus', 'texts')} · {said.get('samples')} texts, last token"],
        footer="Numbers carry 9 significant digits. Analyses after Fernando and Guitchounts (arXiv 2502.12131).",
        stores=[one.label],
        commands=[str(told.get("command") or "# written from Python by jaxdyn.dynamics.analyse")],
    )


def _named(chart: Chart, label: str, number: int) -> Chart:
    """Name panels and groups after their store."""
    mark = f"{'AB'[number]}-"
    panels = tuple(
        replace(panel, title=f"{label}: {panel.title}", key=f"{mark}{panel.key}",
                group=f"{mark}{panel.group}" if panel.group else "")
        for panel in chart.panels
    )  # fmt: skip
    groups = {f"{mark}{key}": f"{label}: {words}" for key, words in chart.groups.items()}
    return replace(chart, panels=panels, groups=groups)
