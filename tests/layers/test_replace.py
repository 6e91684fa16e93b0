import copy

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.nn.utils import parametrizations

from mmdet_hetconv.layers import GroupPointwiseConv2d, HetConv2d
from mmdet_hetconv.layers.replace import find_convs, replace_convs

HET = dict(type='HetConv', p=2)


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.Conv2d(8, 4, 1),
        nn.Conv2d(4, 6, (1, 5), padding=(0, 2), bias=False),
    )


def reasons(records):
    return {record.name: record.reason for record in records}


def test_switches_what_fits_and_says_why_not():
    model = make_model()
    names = list(find_convs(model))
    records = replace_convs(model, HET)
    assert names == [record.name for record in records]
    assert reasons(records) == {
        '0': 'in_channels=3 is not a multiple of p=2',
        '1': None,
        '2': 'the kernel is 1 x 1',
        '3': None,
    }
    assert isinstance(model[1], HetConv2d) and isinstance(model[3], HetConv2d)
    assert records[1].layer is model[1]
    assert (records[1].dense_macs, records[1].macs) == (8 * 72, 8 * 40)
    assert records[1].dense_parameters == 8 * 72 + 8
    assert records[1].parameters == 8 * 40 + 8
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 6, 4, 4)


@pytest.mark.parametrize('kind', ['HetConv', 'GroupPointwiseConv', 'DepthPointwiseConv'])
@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_a_stem_on_image_channels_stays_dense(kind, channels):
    part = dict(HetConv=dict(p=channels), GroupPointwiseConv=dict(conv_groups=channels))
    conv = MODELS.build(
        dict(
            part.get(kind, {}),
            type=kind,
            in_channels=channels,
            out_channels=4 * channels,
            kernel_size=7,
        )
    )
    assert type(conv) is nn.Conv2d
    if kind == 'HetConv' and channels > 1:
        (record,) = replace_convs(nn.Sequential(conv), dict(type=kind, p=channels))
        assert record.reason == f'in_channels={channels} are those of an image'


def test_geometry_and_weights_come_from_the_dense_layer():
    for kwargs in (
        dict(stride=2, padding=3, dilation=2),
        dict(padding='same', bias=False),
        dict(padding=1, padding_mode='reflect'),
    ):
        dense = nn.Sequential(nn.Conv2d(8, 8, 3, **kwargs))
        own_blocks_only = dense[0].weight.data
        own_blocks_only[:4, 4:] = 0
        own_blocks_only[4:, :4] = 0
        het = copy.deepcopy(dense)
        replace_convs(het, HET)
        assert isinstance(het[0], HetConv2d)
        image = torch.rand(1, 8, 9, 9)
        torch.testing.assert_close(het(image), dense(image))


def test_shared_modules_stay_shared():
    conv = nn.Conv2d(8, 8, 3, padding=1)
    inner = nn.Sequential(conv, nn.ReLU())
    model = nn.ModuleDict(dict(a=conv, b=inner, c=nn.ModuleList([inner])))
    records = replace_convs(model, HET)
    assert [record.name for record in records] == ['a']
    assert isinstance(model['a'], HetConv2d)
    assert model['a'] is model['b'][0] is model['c'][0][0]


def test_a_shared_parameter_stays_as_it_is():
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    model[1].weight = model[0].weight
    records = replace_convs(model, HET)
    assert {record.reason for record in records} == {'it shares a parameter with another module'}
    assert model[0].weight is model[1].weight


def test_dtype_requires_grad_and_training_flag():
    model = make_model().double()
    model[1].eval()
    model[1].weight.requires_grad_(False)
    model[3].weight.requires_grad_(False)
    replace_convs(model, HET)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model.training and not model[1].training
    assert not model[1].grouped.training and model[3].grouped.training
    grads = {n: p.requires_grad for n, p in model[1].named_parameters()}
    assert grads == {'grouped.weight': False, 'grouped.bias': True, 'pointwise.weight': False}


def test_device():
    model = make_model().to('meta')
    replace_convs(model, HET)
    assert isinstance(model[1], HetConv2d)
    assert all(p.is_meta for p in model.parameters())


def test_memory_format():
    model = make_model().to(memory_format=torch.channels_last)
    replace_convs(model, HET)
    weight = model[1].grouped.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    plain = make_model()
    replace_convs(plain, HET)
    assert plain[1].grouped.weight.is_contiguous()


def test_hooks_run_and_their_handles_remove_them():
    model = make_model()
    calls = []
    handles = [
        model[1].register_forward_hook(lambda *_: calls.append('forward')),
        model[1].register_forward_pre_hook(lambda *_: calls.append('before')),
        model[1].register_full_backward_hook(lambda *_: calls.append('back')),
    ]
    replace_convs(model, HET)
    image = torch.rand(1, 3, 8, 8)
    model(image).sum().backward()
    assert calls == ['before', 'forward', 'back']
    for handle in handles:
        handle.remove()
    model(image).sum().backward()
    assert len(calls) == 3


def test_subclasses_and_computed_weights_are_left():
    class Standardised(nn.Conv2d):
        pass

    model = nn.ModuleDict(
        dict(
            subclass=Standardised(8, 8, 3),
            parametrised=parametrizations.weight_norm(nn.Conv2d(8, 8, 3)),
            hooked=nn.utils.weight_norm(nn.Conv2d(8, 8, 3)),
            het=HetConv2d(8, 8, 3, p=4),
            rival=GroupPointwiseConv2d(8, 8, 3, conv_groups=4),
            transposed=nn.ConvTranspose2d(8, 8, 3),
        )
    )
    before = dict(model.named_modules())
    found = reasons(replace_convs(model, HET))
    assert dict(model.named_modules()) == before
    assert found == dict(
        subclass='it is a Standardised',
        parametrised='it is a ParametrizedConv2d',
        hooked='its weight is computed from other parameters',
        het='it is heterogeneous already, p=4',
        rival='it is a GroupPointwiseConv2d',
    )


def test_a_choice_per_layer():
    model = make_model()

    def choose(name, conv):
        assert find_convs(model)[name] is conv
        return dict(type='HetConv', p=4) if name == '1' else 'not wanted'

    found = reasons(replace_convs(model, choose))
    assert model[1].p == 4
    assert found['3'] == 'not wanted'


def test_rivals_take_no_weights_and_say_where_they_are_plain():
    model = make_model()
    cfg = dict(type='GroupPointwiseConv', conv_groups=4)
    found = reasons(replace_convs(model, cfg))
    assert isinstance(model[1], GroupPointwiseConv2d)
    assert isinstance(model[3], GroupPointwiseConv2d)
    assert found['0'].endswith('stands for a plain convolution here')


def test_a_second_switch_changes_nothing():
    model = make_model()
    replace_convs(model, HET)
    before = dict(model.named_modules())
    replace_convs(model, dict(type='HetConv', p=4))
    assert dict(model.named_modules()) == before


def test_a_lone_convolution():
    with pytest.raises(ValueError, match='got a Conv2d itself'):
        replace_convs(nn.Conv2d(8, 8, 3), HET)
