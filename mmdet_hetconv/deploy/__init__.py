"""The inference form of a trained model."""

from .fold_bn import fold_bn
from .memory import hand_back_freed_memory, keep_freed_memory
from .switch import switch_to_deploy

__all__ = ['fold_bn', 'hand_back_freed_memory', 'keep_freed_memory', 'switch_to_deploy']
