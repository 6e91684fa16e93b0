"""Batch norms in the convolutions before them."""

import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from torch import nn

from mmdet_hetconv.deploy import fold_bn
from mmdet_hetconv.layers import GroupPointwiseConv2d, HetConv2d

HET = dict(type='HetConv', p=4)


def trained(model: nn.Module) -> nn.Module:
    """As after training: statistics and affine weights that matter."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.3, 3)
            if module.affine:
                nn.init.normal_(module.weight, 1, 0.5)
                nn.init.normal_(module.bias)
    model.eval()  # some of mmdet's return None
    return model


def sequence(conv: nn.Module, **kwargs) -> nn.Sequential:
    norm = nn.BatchNorm2d(conv.out_channels, **kwargs)
    return nn.Sequential(conv, norm, nn.ReLU(inplace=True))


MODELS = {
    'blocked': lambda: sequence(HetConv2d(16, 32, 3, padding=1, p=4)),
    'shifted': lambda: sequence(HetConv2d(16, 32, 3, padding=1, p=4, arrangement='shifted')),
    'no bias': lambda: sequence(HetConv2d(16, 32, 3, bias=False, p=2)),
    'p=1': lambda: sequence(HetConv2d(16, 32, 3, p=1)),
    'dense': lambda: sequence(nn.Conv2d(16, 32, 3)),
    'depth-wise': lambda: sequence(nn.Conv2d(16, 16, 3, groups=16)),
    'rival': lambda: sequence(GroupPointwiseConv2d(16, 8, 3, conv_groups=4)),
    'not affine': lambda: sequence(nn.Conv2d(16, 32, 3), affine=False),
    'ConvModule': lambda: ConvModule(16, 32, 3, conv_cfg=HET, norm_cfg=dict(type='BN')),
}


@pytest.mark.parametrize('name', MODELS)
def test_function_stays_and_the_norm_goes(name):
    model = trained(MODELS[name]())
    x = torch.randn(2, 16, 7, 9)
    with torch.no_grad():
        before = model(x)
        assert fold_bn(model) == 1
        after = model(x)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    assert fold_bn(model) == 0


@pytest.mark.parametrize('block, norms', [(BasicBlock, 2), (Bottleneck, 3)])
def test_residual_blocks(block, norms):
    channels = 16 * block.expansion
    model = trained(block(channels, 16, conv_cfg=HET))
    x = torch.randn(1, channels, 8, 8)
    with torch.no_grad():
        before = model(x)
        assert fold_bn(model) == norms
        torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)


def test_shared_convolution_keeps_its_norms():
    """As in RetinaSepBN heads: one convolution, a norm for every level."""
    conv = nn.Conv2d(4, 4, 1)
    levels = nn.ModuleList(nn.Sequential(conv, nn.BatchNorm2d(4)) for _ in range(2))
    assert fold_bn(trained(levels)) == 0


def test_what_is_not_folded():
    def hooked() -> nn.Sequential:
        model = sequence(nn.Conv2d(4, 4, 1))
        model[0].register_forward_hook(lambda *_: None)
        return model

    training = sequence(nn.Conv2d(4, 4, 1)).train()
    assert fold_bn(training) == 0
    no_statistics = sequence(nn.Conv2d(4, 4, 1), track_running_stats=False)
    assert fold_bn(no_statistics.eval()) == 0
    assert fold_bn(hooked().eval()) == 0
    relu_between = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4))
    assert fold_bn(relu_between.eval()) == 0
    assert fold_bn(nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4))) == 0
