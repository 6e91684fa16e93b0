"""What the inference form must leave as it is to stay the same function."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet.models.dense_heads.tood_head import TaskDecomposition
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from mmdet_hetconv.deploy import fold_bn, switch_to_deploy
from mmdet_hetconv.kernels import planned_convs
from mmdet_hetconv.layers import GroupPointwiseConv2d, HetConv2d

from .test_fold import HET, sequence, trained
from .test_switch import switched

NORM = dict(type='BN')


def image(channels: int) -> torch.Tensor:
    return torch.randn(2, channels, 8, 10)


REPARAMETERISED = {
    'spectral_norm': lambda: sequence(spectral_norm(nn.Conv2d(8, 8, 3))),
    'weight_norm': lambda: sequence(weight_norm(nn.Conv2d(8, 8, 3))),
    'ConvModule': lambda: ConvModule(8, 8, 3, norm_cfg=NORM, with_spectral_norm=True),
    'parametrization': lambda: sequence(parametrizations.spectral_norm(nn.Conv2d(8, 8, 3))),
}


@pytest.mark.filterwarnings('ignore:.*weight_norm.*')
@pytest.mark.parametrize('name', REPARAMETERISED)
def test_weights_that_are_made_at_each_call(name):
    model = trained(REPARAMETERISED[name]())
    # The weight at hand is the last call's; a load changes what it is made of.
    model(image(8))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    switched(model, image(8))


@pytest.mark.parametrize(
    'conv, branch',
    [
        (HetConv2d(8, 8, 3, p=2), 'grouped'),
        (HetConv2d(8, 8, 3, p=2), 'pointwise'),
        (GroupPointwiseConv2d(8, 8, 3, conv_groups=2), 'pointwise'),
    ],
)
def test_branches_with_a_weight_made_at_each_call(conv, branch):
    model = trained(sequence(copy.deepcopy(conv)))
    spectral_norm(model[0].get_submodule(branch))
    switched(model, image(8))


def test_weight_of_two_convolutions_is_not_scaled_for_both():
    model = trained(nn.Sequential(sequence(nn.Conv2d(8, 8, 1)), nn.Conv2d(8, 8, 1)))
    model[1].weight = model[0][0].weight
    switched(model, image(8))


class Both(nn.Module):
    """Two modules on one input."""

    def __init__(self, one: nn.Module, other: nn.Module):
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x):
        return self.one(x), self.other(x)


@pytest.mark.parametrize('relu_first', [False, True])
def test_convolution_of_two_sequences_gets_the_relu_of_neither(relu_first):
    conv = nn.Conv2d(8, 8, 3)
    both = [nn.Sequential(conv, nn.ReLU(inplace=True)), nn.Sequential(conv)]
    model = Both(*(both if relu_first else both[::-1])).eval()
    deployed = switched(model, image(8))
    assert not any(c.relu for c in planned_convs(deployed))


@pytest.mark.parametrize('relu_first', [False, True])
def test_convolution_of_two_conv_modules_gets_the_relu_of_neither(relu_first):
    with_relu, without = ConvModule(8, 8, 3), ConvModule(8, 8, 3, act_cfg=None)
    without.conv = with_relu.conv
    both = [with_relu, without]
    switched(Both(*(both if relu_first else both[::-1])).eval(), image(8))


def test_shared_conv_module_is_fused():
    """The convolution has one place, in a module that has two."""
    shared = ConvModule(8, 8, 3)
    deployed = switched(Both(shared, nn.Sequential(shared)).eval(), image(8))
    assert planned_convs(deployed)[0].relu


def double(module, inputs, output):
    return 2 * output


def halve(module, inputs):
    return (inputs[0] / 2,)


def hooked(module: nn.Module, path: str, hook) -> nn.Module:
    inner = module.get_submodule(path) if path else module
    if hook is halve:
        inner.register_forward_pre_hook(hook)
    else:
        inner.register_forward_hook(hook)
    return module


HOOKED = {
    'BasicBlock': (lambda: BasicBlock(16, 16, conv_cfg=HET), ''),
    'Bottleneck': (lambda: Bottleneck(64, 16, conv_cfg=HET), ''),
    "block's convolution": (lambda: BasicBlock(16, 16, conv_cfg=HET), 'conv1'),
    "block's norm": (lambda: BasicBlock(16, 16, conv_cfg=HET), 'bn2'),
    "block's ReLU": (lambda: BasicBlock(16, 16, conv_cfg=HET), 'relu'),
    'ConvModule': (lambda: ConvModule(16, 16, 3, norm_cfg=NORM), ''),
    'activate': (lambda: ConvModule(16, 16, 3, norm_cfg=NORM), 'activate'),
    'norm': (lambda: ConvModule(16, 16, 3, norm_cfg=NORM), 'bn'),
    'ReLU': (lambda: sequence(nn.Conv2d(16, 16, 3)), '2'),
    'identity': (
        lambda: nn.Sequential(nn.Conv2d(16, 16, 3), nn.Identity(), nn.ReLU(inplace=True)),
        '1',
    ),
    'branch': (lambda: sequence(HetConv2d(16, 16, 3, p=4)), '0.pointwise'),
}


@pytest.mark.parametrize('hook', [double, halve])
@pytest.mark.parametrize('name', HOOKED)
def test_hooks_stay_where_they_are(name, hook):
    make, path = HOOKED[name]
    model = trained(hooked(make(), path, hook))
    channels = next(model.parameters()).shape[1]
    if isinstance(model, BasicBlock):
        channels = 16
    if name == 'branch':
        channels = 16
    switched(model, image(channels))


def test_block_with_another_activation():
    block = trained(BasicBlock(16, 16, conv_cfg=HET))
    block.relu = nn.SiLU()
    switched(block, image(16))


class PreActivation(nn.Module):
    """bn1, ReLU, conv1, bn2, conv2, named as in mmdet's blocks."""

    norm1_name, norm2_name = 'bn1', 'bn2'

    def __init__(self):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        x = self.conv1(F.relu(self.bn1(x)))
        return self.conv2(F.relu(self.bn2(x)))


def test_norms_are_folded_by_what_runs_and_not_by_their_names():
    """The second norm follows on the first convolution."""
    model = trained(PreActivation())
    switched(model, image(8))
    assert fold_bn(model) == 1
    assert type(model.bn1) is nn.BatchNorm2d and type(model.bn2) is nn.Identity


@pytest.mark.parametrize('norm', [None, NORM, dict(type='GN', num_groups=4)])
def test_convolution_whose_weight_is_multiplied_with(norm):
    """TOOD takes weight, norm and activation of a ConvModule one by one."""
    model = trained(TaskDecomposition(8, 2, norm_cfg=norm))
    deployed = switched(model, image(16))
    # Its layer attention is called, and so is exchanged.
    assert len(planned_convs(deployed)) == 2


class InLoop(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(ConvModule(8, 8, 1) for _ in range(2))

    def forward(self, x):
        for layer in self.layers:
            x = layer.conv(x)
        return x


def test_parts_that_code_takes_in_a_loop():
    switched(InLoop().eval(), image(8))


@pytest.mark.parametrize('left_out', ['activate', 'norm'])
@pytest.mark.parametrize('by_name', [False, True])
def test_conv_module_refuses_to_leave_out_what_is_fused(left_out, by_name):
    model = trained(ConvModule(8, 8, 3, norm_cfg=NORM))
    switch_to_deploy(switch_to_deploy(model))
    assert len(model._forward_pre_hooks) == 1
    model(image(8), True, norm=True)
    with pytest.raises(ValueError, match=f'{left_out}=False'):
        if by_name:
            model(image(8), **{left_out: False})
        else:
            model(image(8), left_out != 'activate', left_out != 'norm')


def test_efficient_conv_bn_eval_ends():
    """mmcv's takes the norm's statistics, which are folded."""
    model = ConvModule(8, 8, 3, norm_cfg=NORM, efficient_conv_bn_eval=True)
    switched(trained(model), image(8)).eval()(image(8))
