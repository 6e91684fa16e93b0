"""The inference form of a trained model."""

from .fold_bn import fold_bn
from .switch import switch_to_deploy

__all__ = ['fold_bn', 'switch_to_deploy']
