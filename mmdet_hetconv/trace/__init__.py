"""Records what a network does in a run, and compares two forms of it."""

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
