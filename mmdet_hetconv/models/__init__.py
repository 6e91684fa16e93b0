"""Components of mmdet whose stock class hard-codes its convolutions."""

from .ssd_vgg import HetSSDVGG

# Registered types and those of their arguments that choose convolutions.
HET_COMPONENTS = dict(HetSSDVGG=('conv_cfg', 'p'))

__all__ = ['HET_COMPONENTS', 'HetSSDVGG']
