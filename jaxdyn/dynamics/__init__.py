"""The dynamics of a residual stream along depth: every quantity beside the null and the controls that it needs.

After Fernando and Guitchounts, "Transformer Dynamics" (arXiv 2502.12131); methods.md section 2. The command is
`jaxdyn dynamics`; `analyse` is the same from Python. Nothing here needs flax but the autoencoder.
"""

from .rotation import phase_portrait as phase_portrait
from .rotation import rotation_count as rotation_count
from .run import analyse as analyse
from .settings import DynamicsSettings as DynamicsSettings
from .teleport_settings import TeleportSettings as TeleportSettings

__all__ = ["DynamicsSettings", "TeleportSettings", "analyse", "phase_portrait", "rotation_count"]
