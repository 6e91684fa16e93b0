import itertools

import pytest
import torch
from mmcv.cnn import ConvModule, build_conv_layer
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from mmdet_hetconv.kernels import PlannedConv2d
from mmdet_hetconv.layers import HetConv2d, build_het_conv

from .oracle import has_large_kernel, heterogeneous_convolution

GRID = list(
    itertools.product(
        ['blocked', 'shifted'],
        [1, 2, 4],
        [
            # kernel, stride, padding, dilation, padding_mode
            ((3, 3), (1, 1), (1, 1), (1, 1), 'zeros'),
            ((3, 3), (2, 2), (0, 0), (1, 1), 'zeros'),
            ((3, 3), (2, 1), (3, 2), (1, 1), 'zeros'),
            ((5, 5), (1, 1), (2, 2), (1, 1), 'zeros'),
            ((3, 3), (1, 1), (6, 6), (6, 6), 'zeros'),
            ((3, 3), (3, 2), (1, 0), (2, 1), 'zeros'),
            ((1, 3), (1, 1), (0, 1), (1, 1), 'zeros'),
            ((3, 5), (1, 2), (0, 4), (1, 2), 'zeros'),
            ((3, 3), (1, 1), (1, 1), (1, 1), 'reflect'),
            ((3, 3), (2, 2), (2, 1), (1, 1), 'replicate'),
            ((3, 3), (1, 2), (1, 3), (2, 1), 'circular'),
            ((7, 7), (2, 2), (3, 3), (1, 1), 'zeros'),
        ],
        [True, False],
    )
)


def make_layer(channels=8, filters=4, kernel_size=3, **kwargs):
    torch.manual_seed(0)
    return HetConv2d(channels, filters, kernel_size, **kwargs).double()


def kernels_of(layer):
    """The layer's weights by (filter, channel), read from its state dict.

    The documented storage: block by block, the foreign ones ascending.
    """
    N, M, p = layer.out_channels, layer.in_channels, layer.p
    large, small = {}, {}

    def channels_of(block):
        if layer.arrangement == 'shifted':
            return [m for m in range(M) if m % p == block]
        return list(range(block * M // p, (block + 1) * M // p))

    def filters_of(block):
        if layer.arrangement == 'shifted':
            return [n for n in range(N) if n % p == block]
        return list(range(block * N // p, (block + 1) * N // p))

    for block in range(p):
        foreign = [m for b in range(p) if b != block for m in channels_of(b)]
        for i, n in enumerate(filters_of(block)):
            row = block * (N // p) + i
            for j, m in enumerate(channels_of(block)):
                large[n, m] = layer.grouped.weight[row, j]
            for j, m in enumerate(foreign):
                small[n, m] = layer.pointwise.weight[row, j, 0, 0]
    bias = layer.grouped.bias
    if bias is not None:
        ordered = torch.empty_like(bias)
        rows = [n for block in range(p) for n in filters_of(block)]
        for row, n in enumerate(rows):
            ordered[n] = bias[row]
        bias = ordered
    return large, small, bias


@pytest.mark.parametrize('arrangement, p, geometry, bias', GRID)
def test_against_the_definition(arrangement, p, geometry, bias):
    kernel_size, stride, padding, dilation, padding_mode = geometry
    layer = make_layer(
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        bias=bias,
        padding_mode=padding_mode,
        p=p,
        arrangement=arrangement,
    )
    x = torch.randn(2, 8, 15, 14, dtype=torch.double)
    large, small, bias = kernels_of(layer)
    for n, m in itertools.product(range(4), range(8)):
        expected = has_large_kernel(n, m, 4, 8, p, arrangement)
        assert ((n, m) in large) == expected
        assert ((n, m) in small) != expected
    expected = heterogeneous_convolution(x, large, small, bias, *geometry[:4], padding_mode)
    torch.testing.assert_close(layer(x), expected)

    dense = nn.Conv2d(
        8,
        4,
        kernel_size,
        stride,
        padding,
        dilation,
        bias=bias is not None,
        padding_mode=padding_mode,
    ).double()
    dense.weight.data = layer.dense_weight().detach()
    if bias is not None:
        dense.bias.data = layer.dense_bias().detach()
    assert layer(x).shape == dense(x).shape
    torch.testing.assert_close(dense(x), expected)


@pytest.mark.parametrize('padding', ['same', 'valid'])
def test_padding_by_name(padding):
    layer = make_layer(kernel_size=(3, 5), padding=padding, dilation=2)
    dense = nn.Conv2d(8, 4, (3, 5), padding=padding, dilation=2).double()
    dense.weight.data = layer.dense_weight().detach()
    dense.bias.data = layer.dense_bias().detach()
    x = torch.randn(1, 8, 12, 12, dtype=torch.double)
    torch.testing.assert_close(layer(x), dense(x))


@pytest.mark.parametrize('p', [1, 2, 4, 8])
def test_no_redundant_parameter(p):
    layer = HetConv2d(16, 24, 3, p=p, bias=False)
    numbers = sum(weight.numel() for weight in layer.parameters())
    assert numbers == 24 * (9 * 16 // p + 16 - 16 // p)


@pytest.mark.parametrize('arrangement', ['blocked', 'shifted'])
def test_gradients(arrangement):
    layer = make_layer(channels=4, p=2, stride=2, padding=2, arrangement=arrangement)
    x = torch.randn(2, 4, 5, 6, dtype=torch.double, requires_grad=True)

    def function(x, grouped, bias, pointwise):
        state = {'grouped.weight': grouped, 'grouped.bias': bias, 'pointwise.weight': pointwise}
        return torch.func.functional_call(layer, state, (x,))

    parameters = (layer.grouped.weight, layer.grouped.bias, layer.pointwise.weight)
    assert torch.autograd.gradcheck(function, (x, *parameters))
    layer(x).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.abs().min() > 0, name


def test_shifted_is_blocked_on_permuted_channels():
    shifted = make_layer(filters=12, p=4, arrangement='shifted', padding=1)
    blocked = make_layer(filters=12, p=4, padding=1)
    blocked.grouped.load_state_dict(shifted.grouped.state_dict())
    blocked.pointwise.load_state_dict(shifted.pointwise.state_dict())
    x = torch.randn(2, 8, 6, 6, dtype=torch.double)
    by_residue = sorted(range(8), key=lambda m: m % 4)
    filters = sorted(range(12), key=lambda n: n % 4)
    torch.testing.assert_close(shifted(x)[:, filters], blocked(x[:, by_residue]))


def test_empty_batch_and_single_image():
    layer = HetConv2d(8, 4, 3, padding=1)
    assert layer(torch.zeros(0, 8, 5, 5)).shape == (0, 4, 5, 5)
    image = torch.randn(8, 5, 5)
    torch.testing.assert_close(layer(image), layer(image[None])[0])


@pytest.mark.parametrize('arrangement', ['blocked', 'shifted'])
def test_channels_last(arrangement):
    layer = HetConv2d(16, 16, 3, padding=1, arrangement=arrangement)
    x = torch.randn(2, 16, 7, 9)
    expected = layer(x)
    layer = layer.to(memory_format=torch.channels_last)
    out = layer(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(out, expected)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_non_contiguous_input():
    layer = HetConv2d(8, 8, 3, padding=1)
    x = torch.randn(2, 9, 16, 8).permute(0, 3, 1, 2)[..., ::2]
    torch.testing.assert_close(layer(x), layer(x.contiguous()))


def test_autocast():
    layer = HetConv2d(8, 8, 3, padding=1)
    x = torch.randn(1, 8, 6, 6)
    with torch.autocast('cpu', torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), layer(x), atol=0.05, rtol=0.05)
    out.sum().backward()
    assert layer.pointwise.weight.grad.dtype == torch.float32


@pytest.mark.parametrize('arrangement', ['blocked', 'shifted'])
def test_compiles_without_graph_break(arrangement):
    layer = HetConv2d(8, 8, 3, padding=1, stride=2, arrangement=arrangement)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    x = torch.randn(2, 8, 9, 9)
    torch.testing.assert_close(compiled(x), layer(x))


def test_traces():
    layer = HetConv2d(8, 8, 5, padding=0, arrangement='shifted')
    traced = torch.jit.trace(layer, torch.randn(1, 8, 9, 9))
    x = torch.randn(3, 8, 12, 10)
    torch.testing.assert_close(traced(x), layer(x))


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(p=0), r'p must be an integer >= 1, got p=0'),
        (dict(p=-2), r'got p=-2'),
        (dict(p=2.0), r'got p=2.0'),
        (dict(p='4'), r"got p='4'"),
        (dict(p=True), r'got p=True'),
        (dict(p=3), r'in_channels=8 is not a multiple of p=3'),
        (dict(p=8), r'out_channels=4 is not a multiple of p=8'),
        (dict(kernel_size=4), r'kernel_size=\(4, 4\) has no centre'),
        (dict(groups=2), r'groups=2'),
        (dict(arrangement='x'), r"'permuted'\), got 'x'"),
        (dict(padding='full'), r"got 'full'"),
        (dict(padding='same', stride=2), r'needs stride 1'),
        (dict(padding_mode='constant'), r"'circular'\), got 'constant'"),
        (dict(padding_mode='foo'), r"'circular'\), got 'foo'"),
    ],
)
def test_wrong_arguments(arguments, message):
    arguments = {'in_channels': 8, 'out_channels': 4, 'kernel_size': 3, **arguments}
    with pytest.raises(ValueError, match=message):
        HetConv2d(**arguments)


@pytest.mark.parametrize(
    'arguments',
    [
        dict(kernel_size=1),
        dict(groups=8),
        dict(kernel_size=2),
        dict(in_channels=3),
        dict(out_channels=6),
        dict(p=1),
    ],
)
def test_factory_builds_plain_convolutions_where_it_must(arguments):
    arguments = {'in_channels': 8, 'out_channels': 8, 'kernel_size': 3, **arguments}
    assert type(build_het_conv(**arguments)) is nn.Conv2d


@pytest.mark.parametrize('arguments', [dict(p=0), dict(arrangement='diag')])
def test_factory_refuses_nonsense_even_where_it_would_not_be_used(arguments):
    with pytest.raises(ValueError, match='HetConv'):
        build_het_conv(8, 8, 1, **arguments)


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'somewhere_else'])
def test_is_found_from_every_scope(scope):
    with DefaultScope.overwrite_default_scope(scope):
        layer = build_conv_layer(dict(type='HetConv', p=2), 8, 8, 3)
    assert isinstance(layer, HetConv2d)
    assert layer.p == 2
    assert MODELS.get('HetConv') is build_het_conv


@pytest.mark.parametrize('arrangement', ['blocked', 'shifted'])
def test_dense_weights_load(arrangement):
    dense = nn.Conv2d(8, 12, 3, padding=1)
    layer = HetConv2d(8, 12, 3, padding=1, arrangement=arrangement)
    layer.load_state_dict(dense.state_dict())
    weight = layer.dense_weight()
    for n, m in itertools.product(range(12), range(8)):
        if has_large_kernel(n, m, 12, 8, 4, arrangement):
            assert torch.equal(weight[n, m], dense.weight[n, m])
        else:
            off_centre = weight[n, m].flatten()[[0, 1, 2, 3, 5, 6, 7, 8]]
            assert torch.count_nonzero(off_centre) == 0
    assert torch.equal(layer.dense_bias(), dense.bias)


def test_dense_weights_load_exactly_where_nothing_is_lost():
    source = HetConv2d(8, 12, 3, arrangement='shifted')
    layer = HetConv2d(8, 12, 3, arrangement='shifted')
    layer.load_state_dict({'weight': source.dense_weight(), 'bias': source.dense_bias()})
    for name, value in source.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[name], value)


@pytest.mark.parametrize(
    'load',
    [lambda net, state: net.load_state_dict(state), load_state_dict],
    ids=['torch', 'mmengine'],
)
def test_one_log_line_per_load(load, caplog):
    def make(conv):
        return nn.Sequential(conv(8, 8, 3), nn.Sequential(conv(8, 8, 3), conv(8, 8, 3)))

    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        for _ in range(2):
            load(make(HetConv2d), make(nn.Conv2d).state_dict())
    finally:
        logger.removeHandler(caplog.handler)
    lines = [r.getMessage() for r in caplog.records if 'HetConv' in r.msg]
    assert len(lines) == 2
    assert all(line.endswith('from 0 on') for line in lines)


def test_a_load_leaves_the_given_state_dict_alone():
    state = nn.Conv2d(8, 8, 3).state_dict()
    HetConv2d(8, 8, 3).load_state_dict(state)
    assert sorted(state) == ['bias', 'weight']


@pytest.mark.parametrize(
    'source, message',
    [
        (HetConv2d(8, 8, 3, p=2), 'size mismatch for grouped.weight'),
        (HetConv2d(8, 8, 3, arrangement='shifted'), 'arrangement'),
        (nn.Conv2d(8, 8, 5), r'dense weight of shape \(8, 8, 5, 5\)'),
    ],
)
def test_weights_that_do_not_fit_are_refused(source, message):
    with pytest.raises(RuntimeError, match=message):
        HetConv2d(8, 8, 3).load_state_dict(source.state_dict(), strict=False)


def test_blocked_weights_do_not_load_into_a_shifted_layer():
    layer = HetConv2d(8, 8, 3, arrangement='shifted')
    with pytest.raises(RuntimeError, match="arrangement='shifted'"):
        layer.load_state_dict(HetConv2d(8, 8, 3).state_dict(), strict=False)


def test_a_permuted_layer_takes_any_arrangement():
    x = torch.randn(2, 8, 6, 6)
    for arrangement in ('blocked', 'shifted', 'permuted'):
        source = HetConv2d(8, 12, 3, arrangement=arrangement)
        if arrangement == 'permuted':
            source.input_order.copy_(torch.randperm(8))
            source.output_order.copy_(torch.randperm(12))
        layer = HetConv2d(8, 12, 3, arrangement='permuted')
        layer.load_state_dict(source.state_dict())
        assert torch.equal(layer(x), source(x))
        dense = nn.functional.conv2d(x, layer.dense_weight(), layer.dense_bias())
        torch.testing.assert_close(layer(x), dense)
        planned = PlannedConv2d(layer.eval())
        with torch.no_grad():
            torch.testing.assert_close(planned(x), dense)


def test_an_order_that_is_no_permutation_is_refused():
    layer = HetConv2d(8, 8, 3, arrangement='permuted')
    state = layer.state_dict()
    state['input_order'] = torch.tensor([0, 1, 2, 3, 4, 5, 6, 6])
    with pytest.raises(RuntimeError, match='no permutation of 8 channels'):
        layer.load_state_dict(state)


def test_conv_module_contract():
    module = ConvModule(
        8, 16, 3, stride=2, padding=1, conv_cfg=dict(type='HetConv', p=4), norm_cfg=dict(type='BN')
    )
    assert isinstance(module.conv, HetConv2d)
    assert module.conv.grouped.bias is None
    for name in ('in_channels', 'out_channels', 'kernel_size', 'stride'):
        assert getattr(module, name) == getattr(module.conv, name)
    assert module.conv.padding == (1, 1)
    assert module(torch.randn(2, 8, 7, 7)).shape == (2, 16, 4, 4)


def test_conv_module_pads_explicitly_with_its_own_modes():
    module = ConvModule(
        8, 8, 3, padding=1, padding_mode='reflect', conv_cfg=dict(type='HetConv', p=4), act_cfg=None
    )
    dense = nn.Conv2d(8, 8, 3, padding=1, padding_mode='reflect')
    dense.weight.data = module.conv.dense_weight().detach()
    dense.bias.data = module.conv.dense_bias().detach()
    x = torch.randn(1, 8, 6, 6)
    torch.testing.assert_close(module(x), dense(x))


def test_stock_initialisers_keep_the_output_variance():
    """Kaiming fan_out over both branches gives the dense layer's variance."""
    from mmengine.model import initialize

    torch.manual_seed(0)
    het = nn.Sequential(HetConv2d(256, 256, 3, padding=1, bias=False))
    dense = nn.Sequential(nn.Conv2d(256, 256, 3, padding=1, bias=False))
    for net in (het, dense):
        initialize(net, dict(type='Kaiming', layer='Conv2d', mode='fan_out'))
    x = torch.randn(1, 256, 32, 32)
    ratio = het(x).var() / dense(x).var()
    assert ratio.item() == pytest.approx(1, abs=0.05)
