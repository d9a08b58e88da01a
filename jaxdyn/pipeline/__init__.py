"""The stages put together: texts to results.zarr, a unit of samples at a time."""

from .run import Outcome as Outcome
from .run import analyze as analyze
from .settings import Settings as Settings
from .texts import read_texts as read_texts
