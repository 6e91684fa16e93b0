import copy

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from mmdet_hetconv.convert import calibrate, count_fitting, find_pairs, load_projected, move_norms
from mmdet_hetconv.layers import HetConv2d


def conv(het, *args, **kwargs):
    if het:
        return HetConv2d(*args, p=4, **het, **kwargs)
    return nn.Conv2d(*args, **kwargs)


class Net(nn.Module):
    """A stem, a residual block, a convolution used at two scales."""

    def __init__(self, het=None):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.conv1 = conv(het, 16, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = conv(het, 16, 16, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(16)
        self.shared = conv(het, 16, 8, 3, stride=2, padding=1)
        self.unused = conv(het, 16, 8, 3)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        y = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(y)) + x)
        small = nn.functional.avg_pool2d(x, 2)
        return self.shared(x), self.shared(small)


def smooth_images(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 5, 5, generator=generator)
    return nn.functional.interpolate(coarse, (16, 16), mode='bilinear')


@pytest.fixture
def nets():
    torch.manual_seed(0)
    dense = Net()
    with torch.no_grad():
        for _ in range(20):  # running statistics of these images
            dense(smooth_images(16, seed=_))
    return dense.eval(), Net(dict(arrangement='blocked')).eval()


def batches(count=6):
    return [smooth_images(8, seed=100 + i) for i in range(count)]


def loss(dense, het):
    x = smooth_images(32, seed=7)
    with torch.no_grad():
        pairs = zip(dense(x), het(x))
        return sum(((a - b).square().mean() / a.var()).sqrt().item() for a, b in pairs)


@pytest.mark.parametrize('arrangement', ['blocked', 'shifted'])
def test_calibration_beats_projection(nets, arrangement):
    dense, _ = nets
    projected = Net(dict(arrangement=arrangement)).eval()
    load_projected(dense, projected)
    het = Net(dict(arrangement=arrangement))
    fits = calibrate(dense, het, batches())
    assert list(fits) == ['conv1', 'conv2', 'shared']
    assert all(fit.after < fit.before for fit in fits.values())
    assert loss(dense, het) < 0.8 * loss(dense, projected)


def test_one_pass_in_all_and_one_per_layer_agree(nets):
    """Less memory costs time, it does not change the result."""
    dense, het = nets
    again = copy.deepcopy(het)
    calibrate(dense, het, batches())
    calibrate(dense, again, batches(), memory=0)
    for name, value in het.state_dict().items():
        torch.testing.assert_close(
            again.state_dict()[name], value, msg=lambda m, n=name: f'{n}: {m}'
        )


def test_how_many_batches_run_once_each(nets):
    memory = 2**20
    one = count_fitting(*nets, smooth_images(1), memory=memory)
    # An output of conv2 in front of its norm is what one pass holds at least.
    assert 2 < one <= memory // (16 * 16 * 16 * 4)
    assert count_fitting(*nets, smooth_images(2), memory=memory) in (one // 2, one // 2 + 1)
    assert count_fitting(*nets, smooth_images(1), memory=0) == 1


def test_filters_before_a_norm_have_the_dense_length(nets, monkeypatch):
    """And the network computes what it would without that."""
    dense, het = nets
    calibrate(dense, het, batches())
    plain = Net(dict(arrangement='blocked'))
    monkeypatch.setattr('mmdet_hetconv.convert.calibration.calibrate.rescale', lambda *args: None)
    calibrate(dense, plain, batches())

    def length(net, name):
        layer = net.get_submodule(name)
        het = isinstance(layer, HetConv2d)
        return (layer.dense_weight() if het else layer.weight).norm()

    for name in ('conv1', 'conv2'):
        torch.testing.assert_close(length(het, name), length(dense, name))
        change = length(plain, name) / length(dense, name)
        assert abs(change - 1) > 0.01
    weights = [net.shared.grouped.weight for net in (het, plain)]
    torch.testing.assert_close(*weights)
    x = smooth_images(8, seed=7)
    for a, b in zip(het(x), plain(x)):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_inputs_come_from_the_converted_network(nets):
    """The last layer's fit makes up for the layers before it."""
    dense, het = nets
    calibrate(dense, het, batches())
    alone = copy.deepcopy(het)
    with torch.no_grad():
        alone.shared.load_state_dict(het.shared.project(dense.shared.weight, dense.shared.bias))
    assert loss(dense, het) < loss(dense, alone)


def test_a_heterogeneous_dense_network_is_found_exactly(nets):
    """If the dense weights are a HetConv's, nothing is lost."""
    dense, het = nets
    truth = Net(dict(arrangement='blocked'))
    with torch.no_grad():
        for name in ('conv1', 'conv2', 'shared', 'unused'):
            layer = truth.get_submodule(name)
            dense.get_submodule(name).weight.copy_(layer.dense_weight())
    calibrate(dense, het, batches())
    assert loss(dense, het) < 1e-4


def test_dense_network_and_flags_stay(nets):
    dense, het = nets
    before = copy.deepcopy(dense.state_dict())
    calibrate(dense, het, batches(2))
    assert all(torch.equal(before[k], v) for k, v in dense.state_dict().items())
    assert not dense._forward_hooks and not het.conv1._forward_pre_hooks
    assert all(p.requires_grad for p in het.parameters())
    assert not any(p.grad_fn for p in het.parameters())


def test_a_layer_that_is_never_called_keeps_its_projection(nets):
    dense, het = nets
    fits = calibrate(dense, het, batches(2))
    assert 'unused' not in fits
    expected = het.unused.project(dense.unused.weight, dense.unused.bias)
    for name, value in expected.items():
        assert torch.equal(het.unused.state_dict()[name], value)


def test_norms_follow_the_converted_networks_inputs(nets):
    """Moved by what the conversion changed, not replaced."""
    dense, het = nets
    load_projected(dense, het)
    images = batches(1)
    move_norms(dense, het, images)
    seen = {}
    for key, net in (('dense', dense), ('het', het)):
        net.bn1.register_forward_hook(lambda m, a, y, key=key: seen.update({key: a[0]}))
        with torch.no_grad():
            net(images[0])
    mean = seen['het'].mean((0, 2, 3)) - seen['dense'].mean((0, 2, 3))
    ratio = seen['het'].var((0, 2, 3)) / seen['dense'].var((0, 2, 3))
    torch.testing.assert_close(het.bn1.running_mean, dense.bn1.running_mean + mean)
    torch.testing.assert_close(het.bn1.running_var, dense.bn1.running_var * ratio)


def test_norms_of_an_unchanged_network_do_not_move(nets):
    dense, _ = nets
    same = copy.deepcopy(dense)
    move_norms(dense, same, batches(3))
    for name, value in dense.state_dict().items():
        torch.testing.assert_close(same.state_dict()[name], value)


def test_rois_are_fitted_to_the_layer_not_to_other_rois():
    """Crops in another order, as a detector's proposals come."""

    class TwoStage(nn.Module):
        def __init__(self, het, shift):
            super().__init__()
            self.body = conv(het, 4, 8, 3, padding=1)
            self.head = conv(het, 8, 8, 3, padding=1)
            self.shift = shift

        def forward(self, x):
            x = torch.relu(self.body(x))
            crops = torch.cat([x[..., :8, :8], x[..., 8:, 8:]])
            return self.head(crops.roll(self.shift, 0))

    torch.manual_seed(0)
    dense, het = TwoStage(None, 0), TwoStage(dict(arrangement='blocked'), 3)
    images = [torch.rand(4, 4, 16, 16) for _ in range(6)]
    fits = calibrate(dense, het, images)
    assert fits['head'].after < fits['head'].before
    # Fitted to the outputs of other crops it would be about 1.
    assert fits['head'].after < 0.85


def test_too_few_positions_are_reported(nets, monkeypatch):
    said = []
    monkeypatch.setattr(
        'mmdet_hetconv.convert.calibration.calibrate.print_log',
        lambda text, *args, **kwargs: said.append(text),
    )
    dense, het = nets
    calibrate(dense, het, [smooth_images(1)[..., :4, :4]])
    assert 'conv1: only 13 positions for 48 weights per filter' in said[0]
    assert 'more images would help' in said[0]


def test_bad_input(nets):
    dense, het = nets
    with pytest.raises(ValueError, match='at least one batch'):
        calibrate(dense, het, [])
    with pytest.raises(ValueError, match='conv1: .* not finite'):
        calibrate(dense, het, [smooth_images(2) * torch.nan])
    with pytest.raises(ValueError, match='no HetConv layer'):
        calibrate(dense, dense, batches(1))
    wrong = Net(dict(arrangement='blocked'))
    wrong.conv2 = HetConv2d(16, 16, 3, p=4, stride=2, padding=1)
    with pytest.raises(ValueError, match=r'conv2: stride is \(2, 2\)'):
        find_pairs(dense, wrong)
    wrong.conv2 = nn.Identity()
    del dense.conv1
    with pytest.raises(ValueError, match='conv1 is a HetConv2d .* nothing'):
        find_pairs(dense, wrong)


def test_weights_that_are_not_finite(nets):
    dense, het = nets
    with torch.no_grad():
        dense.conv2.weight[0, 0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match='conv2.weight is not finite'):
        calibrate(dense, het, batches(1))


def test_an_error_in_a_pass_reaches_the_caller(nets):
    dense, het = nets

    def fails(model, batch):
        model(batch)
        if model is het:
            raise RuntimeError('of the model')

    het.shared.register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError('of the model')))
    with pytest.raises(RuntimeError, match='of the model'):
        calibrate(dense, het, batches(2), fails, memory=0)


@pytest.mark.parametrize('value, warns', [(0.0, True), (0.5, True), (None, False)])
def test_blank_images_are_said(nets, caplog, value, warns):
    dense, het = nets
    given = batches()
    if value is not None:
        given = [torch.full_like(batch, value) for batch in given]
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        calibrate(dense, het, given)
    finally:
        logger.removeHandler(caplog.handler)
    assert any('images are blank' in r.getMessage() for r in caplog.records) == warns
