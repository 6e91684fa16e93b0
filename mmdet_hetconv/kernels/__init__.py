"""Ways to compute a convolution for inference, and the choice between them.

All follow one rule for NaN, whichever is chosen: ReLUs, sums and max-pooling keep NaN, as
torch's do. Where HetConv2d's own weights meet an input that is not
finite, the output is not finite either, NaN if the input is NaN. Beyond these, only outputs
whose K x K window holds such an input, in any channel, may become NaN: dense and merged
forms multiply it by zero there. Bytes have no NaN; it becomes their lowest level, 0.
"""

from .plan import CANDIDATES, Choice, Plan
from .planned_conv import PlannedConv2d, first_run, planned_convs
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
