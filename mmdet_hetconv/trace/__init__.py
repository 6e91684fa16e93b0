"""What a network was seen to do in a run, and whether two forms of it do the same."""

from .compare import difference, fewest
from .examples import example_runs, is_detector
from .hooks import hooked
from .record import Call, Recording, Scope, record
from .tensors import find_tensors, map_tensors

__all__ = [
    'Call',
    'Recording',
    'Scope',
    'difference',
    'example_runs',
    'fewest',
    'find_tensors',
    'hooked',
    'is_detector',
    'map_tensors',
    'record',
]
