"""Components of mmdet whose stock class hard-codes its convolutions."""

from .config import set_p, use_conv_cfg
from .mobilenet import HetMobileNet
from .resnet import HetResNet
from .rpn_head import HetRPNHead
from .ssd_head import HetSSDHead
from .ssd_vgg import HetSSDVGG
from .vgg import HetVGG

__all__ = [
    'HetMobileNet',
    'HetRPNHead',
    'HetResNet',
    'HetSSDHead',
    'HetSSDVGG',
    'HetVGG',
    'set_p',
    'use_conv_cfg',
]
