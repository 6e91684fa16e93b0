"""Components of mmdet whose stock class hard-codes its convolutions."""

from .mobilenet import HetMobileNet
from .resnet import HetResNet
from .rpn_head import HetRPNHead
from .ssd_head import HetSSDHead
from .ssd_vgg import HetSSDVGG
from .vgg import HetVGG

# Registered types and the arguments of theirs that choose convolutions.
HET_COMPONENTS = dict(
    HetMobileNet=('conv_cfg', 'p'),
    HetRPNHead=('conv_cfg',),
    HetResNet=('conv_cfg', 'p'),
    HetSSDHead=('conv_cfg',),
    HetSSDVGG=('conv_cfg', 'p'),
    HetVGG=('conv_cfg', 'p'),
)

__all__ = [
    'HET_COMPONENTS',
    'HetMobileNet',
    'HetRPNHead',
    'HetResNet',
    'HetSSDHead',
    'HetSSDVGG',
    'HetVGG',
]
