"""jaxdyn: a transformer's depth as time. Exact Jacobians of every block, their spectra, each measure beside its null.

The way through: `load` a model, `capture` its residual stream, take a `jacobian`, `decompose` it; or `analyze` it all.
Nothing here touches `jax.config`.
"""

from .activations import Activations as Activations
from .activations import capture as capture
from .activations import pad as token_prompts
from .errors import InputError as InputError
from .jacobians import jacobian as jacobian
from .models import Model as Model
from .models import convert as convert
from .models import load as load
from .pipeline import Settings as Settings
from .pipeline import analyze as analyze
from .spectra import Spectrum as Spectrum
from .spectra import decompose as decompose
from .store import open_results as open_results
from .store import open_tree as open_tree

__all__ = [
    "Activations",
    "InputError",
    "Model",
    "Settings",
    "Spectrum",
    "analyze",
    "capture",
    "convert",
    "decompose",
    "jacobian",
    "load",
    "open_results",
    "open_tree",
    "token_prompts",
]
