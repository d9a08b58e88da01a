"""What teleport is asked to do, checked before anything is loaded (D10)."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from jaxdyn.errors import InputError

Scaling = Literal["massive", "all", "none"]
SCALINGS: tuple[Scaling, ...] = get_args(Scaling)
OffPlane = Literal["mean", "natural"]
OFF_PLANE: tuple[OffPlane, ...] = get_args(OffPlane)
CONTROLS = ("random-plane", "random-displacement", "context-frozen", "context-ablated", "random-init")
RADII = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
PAPER_LAYERS, PAPER_DEPTH = (0, 7, 15, 23, 31), 32


@dataclass(frozen=True)
class TeleportSettings:
    """What to teleport.

    Attributes
    ----------
    grid : points along each side of the grid, 2 or more.
    layers : blocks at whose entry the state is replaced; empty for 0, 7, 15, 23, 31 of 32, scaled to the model's depth.
    contexts : samples in whose context each point is run, spread evenly over the samples.
    scaling : of the coordinates before directions and lengths are taken; see `teleport_plane.scale_of`.
    off_plane : what lies off the plane is that of the samples' "mean", or of the context's own "natural" state.
    radii : factors of the displacement from the natural state, for the sweep; ascending.
    threshold : relative error beyond which the linear prediction is said to hold no longer.
    controls : any of `CONTROLS`.
    random_planes : how many random planes.
    rate_draws : random products of each null of the stretching rates; 0 for none.
    seed : of planes, directions, initialisations and null matrices.
    """

    grid: int = 10
    layers: tuple[int, ...] = ()
    contexts: int = 4
    scaling: Scaling = "massive"
    off_plane: OffPlane = "mean"
    radii: tuple[float, ...] = RADII
    threshold: float = 0.5
    controls: tuple[str, ...] = CONTROLS
    random_planes: int = 1
    rate_draws: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run, naming the argument."""
        for name, least in (("grid", 2), ("contexts", 1), ("random_planes", 1), ("rate_draws", 0)):
            if getattr(self, name) < least:
                msg = f"{name}: got {getattr(self, name)}; allowed {least} or more"
                raise InputError(msg)
        for name, one, allowed in (("scaling", self.scaling, SCALINGS), ("off_plane", self.off_plane, OFF_PLANE)):
            if one not in allowed:
                msg = f"{name}: got {one!r}; allowed {', '.join(map(repr, allowed))}"
                raise InputError(msg)
        if unknown := [name for name in self.controls if name not in CONTROLS]:
            msg = f"controls: got {unknown[0]!r}; allowed {', '.join(CONTROLS)}, or none"
            raise InputError(msg)
        radii = np.asarray(self.radii)
        if not len(radii) or not np.isfinite(radii).all() or radii[0] <= 0 or (np.diff(radii) <= 0).any():
            msg = f"radii: got {self.radii}; allowed one or more ascending numbers above 0"
            raise InputError(msg)
        if not self.threshold > 0:
            msg = f"threshold: got {self.threshold}; allowed a relative error above 0"
            raise InputError(msg)

    def sites(self, depth: int) -> tuple[int, ...]:
        """Return the layers to replace the state at, those of the paper scaled to this depth where none were named."""
        if wrong := [layer for layer in self.layers if not 0 <= layer < depth]:
            msg = f"layers: got {wrong[0]}; allowed 0 to {depth - 1}, the blocks at whose entry the state is replaced"
            raise InputError(msg)
        scaled = (round(layer / (PAPER_DEPTH - 1) * (depth - 1)) for layer in PAPER_LAYERS)
        return tuple(sorted(set(self.layers or scaled)))
