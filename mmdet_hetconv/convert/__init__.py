"""Dense to heterogeneous weights. Imports torch, mmengine and layers only."""

from .budget import choose_p
from .calibration import calibrate, count_fitting, move_norms
from .convert_model import ConversionReport, convert_model
from .converted_model import converted_model
from .distillation import DistilReport, distil
from .folding import rearrange
from .layer_errors import layer_errors
from .least_squares import Fit
from .make_dense import make_dense
from .pairing import find_pairs, load_projected

__all__ = [
    'ConversionReport',
    'DistilReport',
    'Fit',
    'calibrate',
    'choose_p',
    'convert_model',
    'converted_model',
    'count_fitting',
    'distil',
    'find_pairs',
    'layer_errors',
    'load_projected',
    'make_dense',
    'move_norms',
    'rearrange',
]
