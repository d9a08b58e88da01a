"""Stage 5 of 7: states put into the stream at one layer and run on, all in one batched pass (D10).

A depth-wise system is a `step` from one layer's state to the next; `flow_decoder.py` makes one of a decoder. `follow`
starts C contexts x P points at one layer and carries three things to the end: the points, each context's own
("natural") state, and the tangents of the natural path, J_{k-1} ... J_l (z - z_nat), which is what the linear map
predicts of the points. Only lengths, inner products and coordinates in a plane leave the pass, never states.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

HIGHEST = lax.Precision.HIGHEST


class System(Protocol):
    """A map from layer to layer; hashable by value, for it is a static argument of the program.

    `depth` is the number L of layers; site k is the entry of layer k, site L what the last one leaves. `data` holds
    the arrays that the functions read. A state is a pytree of C contexts x P points; `read` must be linear in it.
    """

    @property
    def depth(self) -> int:
        """L."""
        ...

    def begin(self, data: Any, first: Int[Array, ""], x: Float[Array, "C P D"]) -> Any:
        """Return the state of points x that stand at site `first`."""
        ...

    def step(self, data: Any, layer: Int[Array, ""], state: Any) -> Any:
        """Carry a state through one layer."""
        ...

    def read(self, state: Any) -> Float[Array, "C P D"]:
        """Return the points."""
        ...


@dataclass(frozen=True)
class Frame:
    """Where lengths and coordinates are taken: v / scale for vectors, ((x - mean) / scale) axes^T in the plane.

    mean, scale : (D,); axes : (2, D), orthonormal rows.
    """

    mean: Float[Array, " D"]
    scale: Float[Array, " D"]
    axes: Float[Array, "2 D"]

    def coordinates(self, x: Float[Array, "... D"]) -> Float[Array, "... 2"]:
        """Return where states fall in the plane."""
        return jnp.matmul((x - self.mean) / self.scale, self.axes.T, precision=HIGHEST)


@dataclass(frozen=True)
class Observed:
    """What is kept of C x P points z that stood at z_0 at the start, site by site; NaN before the start.

    With n the natural state, n_0 at the start, and t the tangent J ... J (z_0 - n_0); lengths and products in the
    frame's scale, coordinates in its plane.

    distance : norm(z - n). moved : norm(z - z_0). norm, travelled : (site, C), norm(n)
    and norm(n - n_0).
    inward : (z - z_0) . (n_0 - z_0), positive where the point went towards the natural state at the start.
    constant : (n - n_0) . (n_0 - z_0), the same if every point made the natural state's step.
    tangent : norm(t). error : norm(z - n - t). bent : norm(z - n - (z_0 - n_0)), what the identity
    leaves unexplained.
    plane, natural_plane, tangent_plane : coordinates of z, of n (site, C, 2) and of n + t.
    """

    distance: Float[Array, "site C P"]
    moved: Float[Array, "site C P"]
    norm: Float[Array, "site C"]
    travelled: Float[Array, "site C"]
    inward: Float[Array, "site C P"]
    constant: Float[Array, "site C P"]
    tangent: Float[Array, "site C P"]
    error: Float[Array, "site C P"]
    bent: Float[Array, "site C P"]
    plane: Float[Array, "site C P 2"]
    natural_plane: Float[Array, "site C 2"]
    tangent_plane: Float[Array, "site C P 2"]


for _kind in (Frame, Observed):
    jax.tree_util.register_dataclass(_kind, data_fields=list(_kind.__dataclass_fields__), meta_fields=[])


@partial(jax.jit, static_argnums=0)
def follow(
    system: System,
    data: Any,
    first: Int[Array, ""],
    natural: Float[Array, "C D"],
    points: Float[Array, "C P D"],
    frame: Frame,
) -> Observed:
    """Put points in place of the natural states at site `first` and run all of them on to the end.

    Parameters
    ----------
    system : static. data : its arrays.
    first : 0 <= first < L; traced, so that one program serves every layer.
    natural : (C, D), each context's own state at that site.
    points : (C, P, D), what stands there instead.
    frame : for lengths and coordinates.

    Returns
    -------
    Observed, over sites 0 .. L, in the dtype of the points; not finite where a point is not. Cost: the layers from
    `first` on, once for C x P points, once for their tangents; memory of a few times C x P states.

    References
    ----------
    methods.md D10.
    """
    start = points, natural[:, None], points - natural[:, None]
    begin = partial(system.begin, data, first)
    path, push = jax.linearize(begin, natural[:, None])
    carry = begin(points), path, jax.vmap(push)(_point_first(start[2]))

    def look(carry):
        rows, path, tangents = carry
        return _observe(
            frame, start, system.read(rows), system.read(path), jax.vmap(system.read)(tangents)[:, :, 0].swapaxes(0, 1)
        )

    def move(layer, carry):
        rows, path, tangents = carry
        step = partial(system.step, data, layer)
        path, push = jax.linearize(step, path)
        return step(rows), path, jax.vmap(push)(tangents)

    nothing = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), jax.eval_shape(look, carry))

    def layer(carry, index):
        return lax.cond(index >= first, lambda c: (move(index, c), look(c)), lambda c: (c, nothing), carry)

    carry, sites = lax.scan(layer, carry, jnp.arange(system.depth))
    return jax.tree.map(lambda before, last: jnp.concatenate([before, last[None]]), sites, look(carry))


def _observe(frame, start, z, natural, tangent):
    z_0, n_0, offset = start
    offset = offset / frame.scale

    def along(change):
        return -jnp.sum(change / frame.scale * offset, axis=-1)

    def length(vector):
        return jnp.linalg.norm(vector / frame.scale, axis=-1)

    return Observed(
        distance=length(z - natural),
        moved=length(z - z_0),
        norm=length(natural)[:, 0],
        travelled=length(natural - n_0)[:, 0],
        inward=along(z - z_0),
        constant=along(natural - n_0),
        tangent=length(tangent),
        error=length(z - natural - tangent),
        bent=length(z - natural - (z_0 - n_0)),
        plane=frame.coordinates(z),
        natural_plane=frame.coordinates(natural)[:, 0],
        tangent_plane=frame.coordinates(natural + tangent),
    )


def _point_first(x):
    """(C, P, D) to (P, C, 1, D): one tangent of the natural states a point."""
    return x.swapaxes(0, 1)[:, :, None]
