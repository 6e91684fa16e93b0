"""Dense to heterogeneous weights. Imports torch, mmengine and layers only."""

from .budget import choose_p
from .calibration.calibrate import calibrate, count_fitting, move_norms
from .calibration.layer_errors import layer_errors
from .calibration.least_squares import Fit
from .convert_model import ConversionReport, convert_model
from .converted_model import converted_model
from .distillation.distil import DistilReport, distil
from .make_dense import make_dense
from .pairing import find_pairs, load_projected
from .permutation.rearrange import rearrange

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
