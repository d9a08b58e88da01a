"""Stage 3 of 7: exact Jacobians of every block, by closed form or by autodiff."""

from .api import check_layer as check_layer
from .api import jacobian as jacobian
from .api import sample_jacobians as sample_jacobians
from .closed_form import BlockJacobian as BlockJacobian
from .request import DERIVATIVES as DERIVATIVES
from .request import OPERATORS as OPERATORS
from .request import PARTS as PARTS
from .request import Request as Request
from .stack import jacobian_stack as jacobian_stack
