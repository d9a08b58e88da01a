"""Everything that decides what `jaxdyn dynamics` computes, checked before anything is loaded."""

from dataclasses import asdict, dataclass, field

from jaxdyn.errors import InputError

from .teleport_settings import TeleportSettings

TRAINED = "trained"
CONTROLS = ("random", "rotated", "skip", "shuffled")
"""Random initialisation, a Haar basis, skip-matched noise, unit identity shuffled at the next point."""

FEWEST = 8
"""Samples below which neighbours and held-out shares have no meaning."""


@dataclass(frozen=True)
class DynamicsSettings:
    """What to measure.

    Attributes
    ----------
    controls : any of "random", "rotated", "skip", "shuffled".
    stages : names of `stages.STAGES`; empty means all. A later run with `resume` may add some.
    max_tokens : keep at most this many tokens of each text; None refuses texts longer than the context.
    draws : draws of each rotation null on the mean trajectory.
    sample_draws : draws of the rotation null of single samples.
    bins : equal-count bins of the binned mutual information.
    neighbours : k of the KSG estimator.
    information_units : coordinates whose mutual information is measured, drawn by the seed; 0 means all.
    epochs : most epochs of the autoencoder's training.
    networks : autoencoders trained side by side.
    teleport : what to teleport; its seed is that of the run, its control "random-init" runs with "random" here.
    seed : of every random number.
    unit : samples a unit of work: what a killed run loses at most.
    """

    controls: tuple[str, ...] = CONTROLS
    stages: tuple[str, ...] = ()
    max_tokens: int | None = None
    draws: int = 1999
    sample_draws: int = 199
    bins: int = 32
    neighbours: int = 3
    information_units: int = 256
    epochs: int = 100
    networks: int = 3
    teleport: TeleportSettings = field(default_factory=TeleportSettings)
    seed: int = 0
    unit: int = 32

    def __post_init__(self) -> None:
        """Refuse what cannot be run, naming the argument."""
        if unknown := [name for name in self.controls if name not in CONTROLS]:
            msg = f"controls: got {unknown[0]!r}; allowed {', '.join(CONTROLS)}, or none"
            raise InputError(msg)
        least = {"draws": 99, "sample_draws": 19, "bins": 2, "neighbours": 1, "information_units": 0, "epochs": 1,
                 "networks": 1, "unit": 1, "seed": 0}  # fmt: skip
        for name, low in least.items():
            if getattr(self, name) < low:
                msg = f"{name.replace('_', '-')}: got {getattr(self, name)}; allowed {low} or more"
                raise InputError(msg)
        if self.neighbours >= FEWEST:
            msg = f"neighbours: got {self.neighbours}; allowed 1 to {FEWEST - 1}"
            raise InputError(msg)

    @property
    def weights(self) -> tuple[str, ...]:
        """Sets of weights that run: the trained ones, and random ones where that control is asked for."""
        return (TRAINED, *(["random"] if "random" in self.controls else []))

    @property
    def rows(self) -> tuple[str, ...]:
        """The measured row and the controls, as the dimension `control` of every group has them."""
        return (TRAINED, *(name for name in CONTROLS if name in self.controls))

    def as_dict(self) -> dict:
        """Plain values of what a resumed run must repeat: all but the stages."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items() if name != "stages"}
        teleport = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self.teleport).items()}
        return values | {"controls": list(self.rows[1:]), "teleport": teleport}
