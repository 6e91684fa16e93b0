"""The inference form of a trained model."""

from .memory import hand_back_freed_memory, keep_freed_memory
from .switch import fold_bn, switch_to_deploy

__all__ = ['fold_bn', 'hand_back_freed_memory', 'keep_freed_memory', 'switch_to_deploy']
