"""Components of mmdet whose stock class hard-codes its convolutions."""

from .ssd_vgg import HetSSDVGG

__all__ = ['HetSSDVGG']
