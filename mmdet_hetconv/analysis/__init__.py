"""What a detector costs: MACs and parameters, without data or weights."""

from .complexity import Complexity, LayerCost, count_complexity
from .config import build_detector, compare_p, count_config, input_shape
from .report import complexity_table, layer_table, save_csv, save_json

__all__ = [
    'Complexity',
    'LayerCost',
    'build_detector',
    'compare_p',
    'complexity_table',
    'count_complexity',
    'count_config',
    'input_shape',
    'layer_table',
    'save_csv',
    'save_json',
]
