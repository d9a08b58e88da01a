"""Checkpoints x operators x texts x layers from one plan: on one laptop or a pod, resumable to the same bits."""

from .plan import Plan, load_plan
from .run import SweepOutcome, sweep

__all__ = ["Plan", "SweepOutcome", "load_plan", "sweep"]
