"""The stages put together: texts to results.zarr, a unit of samples at a time."""

from .api import analyze as analyze
from .run import Outcome as Outcome
from .settings import Settings as Settings
from .texts import read_texts as read_texts
