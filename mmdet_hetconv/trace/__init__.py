"""What a network was seen to do in a run, and whether two forms of it do the same."""

from .compare import difference, fewest, fewest_passing
from .examples import is_detector, record_examples
from .hooks import hooked
from .record import record
from .recording import Call, Recording, Scope, Value
from .tensors import find_tensors, map_tensors

__all__ = [
    'Call',
    'Recording',
    'Scope',
    'Value',
    'difference',
    'fewest',
    'fewest_passing',
    'find_tensors',
    'hooked',
    'is_detector',
    'map_tensors',
    'record',
    'record_examples',
]
