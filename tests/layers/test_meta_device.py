"""Layers that are made without memory and get it later, as torch's are."""

import pytest
import torch
from torch import nn

from mmdet_hetconv.layers import GroupPointwiseConv2d, HetConv2d

ARRANGEMENTS = pytest.mark.parametrize('arrangement', ['blocked', 'shifted', 'permuted'])


def make(arrangement, **kwargs):
    return HetConv2d(8, 16, 3, p=4, arrangement=arrangement, **kwargs)


def tensors(layer):
    return [*layer.parameters(), *layer.buffers()]


def fill_with_garbage(layer):
    """What to_empty() may leave."""
    with torch.no_grad():
        for tensor in tensors(layer):
            tensor.fill_(77)


@ARRANGEMENTS
def test_everything_is_on_the_device_that_was_asked_for(arrangement):
    with torch.device('meta'):
        inside = make(arrangement)
    for layer in (make(arrangement, device='meta'), inside):
        assert {tensor.device.type for tensor in tensors(layer)} == {'meta'}


@ARRANGEMENTS
def test_reset_parameters_follows_to_empty(arrangement):
    layer = make(arrangement, device='meta').to_empty(device='cpu')
    fill_with_garbage(layer)
    torch.manual_seed(0)
    layer.reset_parameters()
    torch.manual_seed(0)
    expected = make(arrangement)
    expected.reset_parameters()
    for (name, mine), theirs in zip(layer.named_buffers(), expected.buffers(), strict=True):
        assert torch.equal(mine, theirs), name
    assert all(tensor.abs().max() < 1 for tensor in layer.parameters())
    x = torch.rand(2, 8, 5, 5)
    expected.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), expected(x))


@ARRANGEMENTS
@pytest.mark.parametrize('of', ['het', 'dense'])
def test_weights_are_assigned_to_a_layer_without_memory(arrangement, of):
    torch.manual_seed(0)
    source = make(arrangement) if of == 'het' else nn.Conv2d(8, 16, 3)
    expected, layer = make(arrangement), make(arrangement, device='meta')
    expected.load_state_dict(source.state_dict())
    layer.load_state_dict(source.state_dict(), assign=True)
    x = torch.rand(2, 8, 5, 5)
    assert torch.equal(layer(x), expected(x))


def test_an_order_of_another_layer_is_refused_without_memory_too():
    layer = make('shifted', device='meta')
    with pytest.raises(RuntimeError, match='channel arrangement'):
        layer.load_state_dict(make('permuted').state_dict(), assign=True)


def test_the_rivals_take_device_and_dtype():
    layer = GroupPointwiseConv2d(8, 16, 3, conv_groups=4, device='meta', dtype=torch.double)
    for tensor in layer.parameters():
        assert tensor.is_meta and tensor.dtype == torch.double
    layer = layer.to_empty(device='cpu')
    fill_with_garbage(layer)
    layer.reset_parameters()
    assert all(tensor.abs().max() < 1 for tensor in layer.parameters())
