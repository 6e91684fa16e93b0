"""Ways to compute a convolution for inference, and the choice between them."""

from .first_run import first_run
from .plan import CANDIDATES, Choice, Plan
from .planned_conv import PlannedConv2d, planned_convs
from .weights import ConvWeights, take_weights

__all__ = [
    'CANDIDATES',
    'Choice',
    'ConvWeights',
    'Plan',
    'PlannedConv2d',
    'first_run',
    'planned_convs',
    'take_weights',
]
