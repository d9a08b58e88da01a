"""Stage 5 of 7: teleport, D10: the last token's stream is replaced by points of a plane, and what becomes of them.

At each chosen layer a grid of n x n points over the samples' range in their principal plane stands in for the natural
state, in several contexts; all are run on to the last layer. Beside it, with the same programs: points of a random
plane; displacements of the same lengths in random directions; attention held at its natural pattern, or the other
positions taken away; the same architecture at random initialisation. The constant flow, every point making the natural
state's own step, is known without a run. The in-context Jacobians' prediction is followed in the same pass, and the
displacements are shortened and lengthened to find where it stops holding.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

from jaxdyn.activations import Activations, capture
from jaxdyn.errors import InputError
from jaxdyn.jacobians import jacobian
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.model import Model

from . import lyapunov
from .flow import Frame, Observed, follow
from .flow_decoder import Context, DecoderSystem, data_of, read_context
from .teleport_dataset import assemble
from .teleport_measures import summarise
from .teleport_plane import SCALINGS, Plane, Scaling, principal_plane, random_plane

OffPlane = Literal["mean", "natural"]
OFF_PLANE: tuple[OffPlane, ...] = get_args(OffPlane)
MEASURED = "grid"
CONTROLS = ("random-plane", "random-displacement", "context-frozen", "context-ablated", "random-init")
RADII = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
PAPER_LAYERS, PAPER_DEPTH = (0, 7, 15, 23, 31), 32

NO_PLANE = ("inward_share_plane", "inward_constant_plane", "inward_excess_plane", "plane_rotation",
            "plane_rotation_linear")  # fmt: skip
"""Measures that say nothing of displacements out of the plane."""


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
    random_planes, initial_seeds : how many random planes, and how many random initialisations.
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
    initial_seeds: int = 1
    rate_draws: int = lyapunov.DRAWS
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run, naming the argument."""
        for name, least in (("grid", 2), ("contexts", 1), ("random_planes", 1), ("initial_seeds", 1), ("rate_draws", 0)):
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


def teleport(
    model: Model,
    activations: Activations,
    settings: TeleportSettings | None = None,
    *,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> xr.Dataset:
    """Replace last tokens by points of a plane, layer by layer, and measure where they go, beside all controls.

    Parameters
    ----------
    model : the model.
    activations : `capture(model, texts)`, the last tokens of 3 or more prompts.
    settings : default: a 10 x 10 grid, four contexts, five layers, all controls.
    progress : called with (stage, done, total).

    Returns
    -------
    Dataset; variables and units as `teleport_dataset.NAMES` has them, dimensions control, start, context, site, radius,
    point, horizon, direction.

    Raises
    ------
    InputError : samples that are not last tokens, or too few; a layer the model lacks.

    Notes
    -----
    Cost: for each start, (controls + radii) runs of contexts x grid^2 rows and their tangents from that layer on; the
    rates, 9 D^3 flops a layer, start, context and draw. Memory is flat in the number of samples beside their states.

    References
    ----------
    methods.md D10; Fernando and Guitchounts, arXiv 2502.12131.
    """
    settings = settings or TeleportSettings()
    starts = settings.sites(model.architecture.layers)
    if activations.rule != "last":
        msg = f"activations: got tokens={activations.rule!r}; teleport replaces the last token: capture with 'last'"
        raise InputError(msg)
    seeds = range(settings.initial_seeds) if "random-init" in settings.controls else ()
    total = (1 + len(seeds)) * len(starts)
    chosen = _spread(len(activations.prompt), settings.contexts)

    trained = _Runner(model, activations, chosen, settings)
    places, done = [], 0
    for site in starts:
        places.append(trained.place(site))
        progress("teleport", done := done + 1, total)
    initial = []
    for seed in seeds:
        other = model.initialised(settings.seed + seed)
        runner = _Runner(other, capture(other, activations.prompts), chosen, settings)
        for number, site in enumerate(starts):
            initial.append((number, runner.place(site, plain=True).summaries[MEASURED]))
            progress("teleport", done := done + 1, total)
    rates = _stretching(model, activations.select(chosen), starts, settings, progress)
    return assemble(places, initial, rates, starts, chosen, settings)


@dataclass(frozen=True)
class Place:
    """What was found at one start: the plane, the grid, and the measures of each control and radius.

    plane, grid : the principal plane and its points (P, 2). states : (S, D), the samples there.
    points : (C, P, D) of the measured grid. seen : what was observed of them.
    summaries : of `teleport_measures.summarise`, by control. sweep : one of them a radius.
    """

    plane: Plane
    grid: Float[np.ndarray, "P 2"]
    states: Float[np.ndarray, "S D"]
    points: Float[np.ndarray, "C P D"]
    seen: Observed
    summaries: dict[str, dict[str, np.ndarray]]
    sweep: list[dict[str, np.ndarray]]


class _Runner:
    """One model, its samples and the contexts chosen of them."""

    def __init__(self, model: Model, activations: Activations, chosen: np.ndarray, settings: TeleportSettings) -> None:
        self.model, self.activations, self.settings = model, activations, settings
        self.context = read_contexts(model, activations, chosen)

    def place(self, site: int, *, plain: bool = False) -> Place:
        """Run everything that starts at one site; `plain` leaves controls and radii out."""
        settings, states = self.settings, np.asarray(self.activations.inputs[site], np.float64)
        natural = np.asarray(self.context.states[site], np.float64)
        plane = principal_plane(states, settings.scaling)
        points = on_plane(plane, plane.grid(settings.grid), natural, settings.off_plane)
        seen = self._follow(site, natural, points, plane)
        summaries = {MEASURED: summarise(seen, site)}
        sweep = []
        if not plain:
            for control in settings.controls:
                if control != "random-init":
                    summaries[control] = self._control(control, site, natural, points, plane, states)
            for radius in settings.radii:
                there = natural[:, None] + radius * (points - natural[:, None])
                sweep.append(summarise(self._follow(site, natural, there, plane), site))
        return Place(plane, plane.grid(settings.grid), states, points, seen, summaries, sweep)

    def _control(self, control, site, natural, points, plane, states):
        settings = self.settings
        rng = np.random.default_rng([settings.seed, site, CONTROLS.index(control)])
        match control:
            case "random-plane":
                found = []
                for _ in range(settings.random_planes):
                    other = random_plane(states, rng, settings.scaling)
                    there = on_plane(other, other.grid(settings.grid), natural, settings.off_plane)
                    found.append(summarise(self._follow(site, natural, there, other), site))
                return {name: np.mean([one[name] for one in found], axis=0) for name in found[0]}
            case "random-displacement":
                there = natural[:, None] + random_displacement(points - natural[:, None], plane.scale, rng)
                found = summarise(self._follow(site, natural, there, plane), site)
                return found | {name: np.full_like(found[name], np.nan) for name in NO_PLANE}
            case _:
                attention = control.removeprefix("context-")
                return summarise(self._follow(site, natural, points, plane, attention), site)

    def _follow(self, site, natural, points, plane, attention="free"):
        dtype = self.context.states.dtype
        frame = Frame(*(jnp.asarray(one, dtype) for one in (plane.mean, plane.scale, plane.axes)))
        system, data = DecoderSystem(self.model.architecture), data_of(self.model.params, self.context, attention)
        where = jnp.asarray(site, jnp.int32)
        seen = follow(system, data, where, jnp.asarray(natural, dtype), jnp.asarray(points, dtype), frame)
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), seen)


def read_contexts(model: Model, activations: Activations, samples: np.ndarray) -> Context:
    """Run the prompts of some samples once; see `flow_decoder.read_context`."""
    rows = activations.prompt[samples]
    lengths = activations.prompts.lengths[rows]
    ids = activations.prompts.token_ids[rows, : lengths.max()]
    return read_context(model.architecture, model.params, jnp.asarray(ids), jnp.asarray(lengths))


def on_plane(
    plane: Plane, c: Float[np.ndarray, "P 2"], natural: Float[np.ndarray, "C D"], off_plane: OffPlane
) -> Float[np.ndarray, "C P D"]:
    """Return the states at coordinates c for each context; what lies off the plane as `TeleportSettings` says."""
    if off_plane == "mean":
        return np.broadcast_to(plane.lift(c), (len(natural), *c.shape[:1], natural.shape[1]))
    step = c - plane.coordinates(natural)[:, None]
    return natural[:, None] + plane.scale * (step @ plane.axes)


def random_displacement(
    displacement: Float[np.ndarray, "C P D"], scale: Float[np.ndarray, " D"], rng: np.random.Generator
) -> Float[np.ndarray, "C P D"]:
    """Return displacements of the same lengths, in the scaled coordinates, in uniformly random directions."""
    length = np.linalg.norm(displacement / scale, axis=-1, keepdims=True)
    direction = rng.normal(size=displacement.shape)
    return scale * direction * (length / np.linalg.norm(direction, axis=-1, keepdims=True))


def _spread(samples: int, wanted: int) -> np.ndarray:
    """Numbers of the samples whose contexts are taken, evenly spread."""
    return np.unique(np.linspace(0, samples - 1, min(wanted, samples)).round().astype(int))


def _stretching(model, activations, starts, settings, progress):
    arch: Architecture = model.architecture
    total, done = arch.layers - min(starts), 0

    def tick():
        nonlocal done
        done += 1
        progress("stretching rates", done, total)

    def factor(layer):
        return jacobian(model, activations, layer=layer)

    return lyapunov.stretching(
        factor, arch.layers, starts, draws=settings.rate_draws, seed=settings.seed, tick=tick
    )
