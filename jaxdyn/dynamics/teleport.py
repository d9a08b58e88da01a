"""Stage 5 of 7: teleport, D10: the last token's stream is replaced by points of a plane, and what becomes of them.

At each chosen layer a grid of n x n points over the samples' range in their principal plane stands in for the natural
state, in several contexts; all are run on to the last layer. Beside it, with the same programs: points of a random
plane; displacements of the same lengths in random directions; attention held at its natural pattern, or the other
positions taken away; the same architecture at random initialisation. The constant flow, every point making the natural
state's own step, is known without a run. The in-context Jacobians' prediction is followed in the same pass, and the
displacements are shortened and lengthened to find where it stops holding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

from jaxdyn.activations import Activations, Prompts, capture, pad
from jaxdyn.errors import InputError
from jaxdyn.jacobians import jacobian
from jaxdyn.models.model import Model

from . import lyapunov
from .flow import Frame, Observed, follow
from .flow_decoder import Context, DecoderSystem, data_of, read_context
from .teleport_dataset import assemble
from .teleport_measures import summarise
from .teleport_plane import Plane, nearest, principal_plane, random_plane, spacing
from .teleport_settings import CONTROLS, OffPlane, TeleportSettings

MEASURED = "grid"
NO_PLANE = ("inward_share_plane", "inward_constant_plane", "inward_excess_plane", "plane_rotation",
            "plane_rotation_linear")  # fmt: skip
"""Measures that say nothing of displacements out of the plane."""


@dataclass(frozen=True)
class Samples:
    """A model with the last tokens of some prompts.

    Attributes
    ----------
    model, prompts : the model, and S prompts padded on the right.
    states : gives the samples' states (S, D) at the entry of a block.
    """

    model: Model
    prompts: Prompts
    states: Callable[[int], Float[np.ndarray, "S D"]]


def teleport(
    samples: Samples,
    settings: TeleportSettings | None = None,
    *,
    initial: Sequence[Samples] = (),
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> xr.Dataset:
    """Replace last tokens by points of a plane, layer by layer, and measure where they go, beside all controls.

    Parameters
    ----------
    samples : 3 or more; `of_activations` makes them of what `capture` returns.
    settings : default: a 10 x 10 grid, four contexts, five layers, all controls.
    initial : the same prompts through the same architecture at random initialisation, one or more; used by the control
        "random-init" where `settings.controls` has it.
    progress : called with (stage, done, total).

    Returns
    -------
    Dataset; variables and units as `teleport_dataset.NAMES` has them, dimensions teleport_control, start, context,
    stop, radius, grid_point, horizon, plane_sample, rate_null and stretch.

    Raises
    ------
    InputError : too few samples; a layer the model lacks, or where the samples lie on a line. Of the layers that were
        not named, those are left out (attribute `left_out`): texts that end alike share their state at the first.

    Notes
    -----
    Cost: for each start, (controls + radii) runs of contexts x grid^2 rows and their tangents from that layer on; the
    rates, 9 D^3 flops a layer, context and draw. Memory is flat in the number of samples beside their states.

    References
    ----------
    methods.md D10; Fernando and Guitchounts, arXiv 2502.12131.
    """
    settings = settings or TeleportSettings()
    wanted = settings.sites(samples.model.architecture.layers)
    starts = wanted if settings.layers else with_planes(samples, wanted)
    chosen = spread(len(samples.prompts.lengths), settings.contexts)
    others = initial if "random-init" in settings.controls else ()
    total, done = (1 + len(others)) * len(starts), 0

    def places(of: Samples, *, plain: bool) -> Iterator[Place]:
        nonlocal done
        runner = _Runner(of, chosen, settings)
        for site in starts:
            yield runner.place(site, plain=plain)
            done += 1
            progress("teleport", done, total)

    measured = list(places(samples, plain=False))
    at_init = [[place.summaries[MEASURED] for place in places(other, plain=True)] for other in others]
    rates = _stretching(samples, chosen, min(starts), settings, progress)
    found = assemble(measured, at_init, rates, starts, chosen, settings)
    return found.assign_attrs(left_out=", ".join(str(layer) for layer in wanted if layer not in starts))


def with_planes(samples: Samples, layers: Sequence[int]) -> tuple[int, ...]:
    """Return the layers where the samples span a plane; refused where there is none."""
    kept, problem = [], None
    for layer in layers:
        try:
            principal_plane(samples.states(layer), "none")
        except InputError as error:
            problem = error
        else:
            kept.append(layer)
    if not kept and problem is not None:
        raise problem
    return tuple(kept)


def of_activations(model: Model, activations: Activations) -> Samples:
    """Return the samples of `capture(model, texts)`; refused where they are not the last tokens."""
    if activations.rule != "last":
        msg = f"activations: got tokens={activations.rule!r}; teleport replaces the last token: capture with 'last'"
        raise InputError(msg)
    return Samples(model, activations.prompts, lambda layer: np.asarray(activations.inputs[layer], np.float64))


@dataclass(frozen=True)
class Place:
    """What was found at one start: the plane, the grid, and the measures of each control and radius.

    plane, grid : the principal plane and its points (P, 2). data : the samples' coordinates (S, 2).
    data_distance : (P,), of the grid's points to the nearest sample. data_spacing : of the samples.
    seen : what was observed of the grid. summaries : of `teleport_measures.summarise`, by control.
    sweep : one of them a radius.
    """

    plane: Plane
    grid: Float[np.ndarray, "P 2"]
    data: Float[np.ndarray, "S 2"]
    data_distance: Float[np.ndarray, " P"]
    data_spacing: float
    seen: Observed
    summaries: dict[str, dict[str, np.ndarray]]
    sweep: list[dict[str, np.ndarray]]


class _Runner:
    """One model, its samples and the contexts chosen of them."""

    def __init__(self, samples: Samples, chosen: np.ndarray, settings: TeleportSettings) -> None:
        self.samples, self.settings = samples, settings
        self.context = contexts_of(samples, chosen)

    def place(self, site: int, *, plain: bool = False) -> Place:
        """Run everything that starts at one site; `plain` leaves controls and radii out."""
        settings, states = self.settings, np.asarray(self.samples.states(site), np.float64)
        natural = np.asarray(self.context.states[site], np.float64)
        plane = principal_plane(states, settings.scaling)
        grid = plane.grid(settings.grid)
        points = on_plane(plane, grid, natural, settings.off_plane)
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
        data = plane.coordinates(states), nearest(states, plane.lift(grid), plane.scale), spacing(states, plane.scale)
        return Place(plane, grid, *data, seen, summaries, sweep)

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
        system, data = (
            DecoderSystem(self.samples.model.architecture),
            data_of(self.samples.model.params, self.context, attention),
        )
        where = jnp.asarray(site, jnp.int32)
        seen = follow(system, data, where, jnp.asarray(natural, dtype), jnp.asarray(points, dtype), frame)
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), seen)


def contexts_of(samples: Samples, chosen: np.ndarray) -> Context:
    """Run the prompts of some samples once; see `flow_decoder.read_context`."""
    lengths = samples.prompts.lengths[chosen]
    ids, model = samples.prompts.token_ids[chosen, : lengths.max()], samples.model
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


def spread(samples: int, wanted: int) -> np.ndarray:
    """Numbers of the samples whose contexts are taken, evenly spread."""
    return np.unique(np.linspace(0, samples - 1, min(wanted, samples)).round().astype(int))


def _stretching(samples, chosen, first, settings, progress):
    """Rates along the paths of the chosen samples, from the first start to the end."""
    model, prompts = samples.model, samples.prompts
    rows = pad([prompts.token_ids[i, : prompts.lengths[i]] for i in chosen], bos=prompts.bos)
    activations = capture(model, rows)
    layers, done = range(first, model.architecture.layers), 0

    def tick():
        nonlocal done
        done += 1
        progress("stretching rates", done, len(layers))

    def factor(layer):
        return jacobian(model, activations, layer=layer)

    return lyapunov.stretching(factor, layers, draws=settings.rate_draws, seed=settings.seed, tick=tick)
