import pytest
import torch
from mmdet.models.backbones import ResNet
from torch import nn

from mmdet_hetconv.convert import convert_model
from mmdet_hetconv.layers import HetConv2d


def make_model():
    torch.manual_seed(0)
    return nn.ModuleDict(
        dict(
            backbone=nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3)),
            head=nn.ModuleDict(dict(tower=nn.Conv2d(16, 16, 3), predict=nn.Conv2d(16, 8, 3))),
        )
    )


def parts(model) -> dict[str, int]:
    return {
        name: module.p for name, module in model.named_modules() if isinstance(module, HetConv2d)
    }


EVERYTHING = ['backbone.1', 'backbone.2', 'head.tower', 'head.predict']


def test_everything_by_default():
    model = make_model()
    report = convert_model(model, p=2)
    assert parts(model) == dict.fromkeys(EVERYTHING, 2)
    assert [record.name for record in report.converted] == EVERYTHING
    assert [record.name for record in report.left] == ['backbone.0']


@pytest.mark.parametrize(
    'kwargs,expected',
    [
        (dict(include='backbone'), {'backbone.1': 4, 'backbone.2': 4}),
        (dict(include=['*.2', '*.tower']), {'backbone.2': 4, 'head.tower': 4}),
        (dict(exclude='*predict'), {'backbone.1': 4, 'backbone.2': 4, 'head.tower': 4}),
        (dict(include='head', exclude='*.predict'), {'head.tower': 4}),
        (
            dict(layers={'backbone.1': 8, 'backbone': 2}, exclude='head'),
            {'backbone.1': 8, 'backbone.2': 2},
        ),
        (dict(p=None, layers={'backbone.[12]': 2, 'head': 1}), None),
        (dict(include='head.tower', layers={'backbone.1': 2}), {'backbone.1': 2, 'head.tower': 4}),
        (dict(layers={'head': 8}, exclude='backbone'), None),
    ],
)
def test_patterns(kwargs, expected):
    expected = expected or (
        {'backbone.1': 2, 'backbone.2': 2}
        if kwargs.get('p', 4) is None
        else {'head.tower': 8, 'head.predict': 8}
    )
    model = make_model()
    convert_model(model, **kwargs)
    assert parts(model) == expected


def test_arrangement():
    model = make_model()
    convert_model(model, arrangement='shifted')
    assert model['head']['tower'].arrangement == 'shifted'


def test_the_table_adds_up():
    report = convert_model(make_model(), p=4, exclude='head')
    table = report.table()
    lines = {line.split()[0]: line for line in table.splitlines() if line}
    # 16 filters of 9 * 4 + 12 weights after 9 * 16
    assert lines['backbone.1'].split()[1:] == (['2.304', 'k', '768', '2.320', 'k', '784'])
    assert lines['head.tower'].endswith('it is excluded')
    assert lines['backbone.0'].endswith('3 is not a multiple of p=4')
    before = 448 + 2320 * 3 + 1160
    after = before - 2 * (2320 - 784)
    saved = f'{100 * (1 - after / before):.1f} %'
    assert table.endswith(f'2 of 5 convolutions converted, {saved} of their parameters saved.')


@pytest.mark.parametrize(
    'kwargs,message',
    [
        (dict(p=3), 'nothing was converted with p=3 among 5 .*multiple of p=3'),
        (dict(p=1), 'nothing was converted with p=1'),
        (dict(p=None), 'nothing was converted with p=None'),
        (dict(include='backbone.0'), 'nothing was converted'),
        (dict(p=0), 'integer >= 1, got p=0'),
        (dict(layers={'head': 2.5}), 'integer >= 1, got p=2.5'),
        (dict(arrangement='striped'), "got 'striped'"),
        (dict(include='neck'), "'neck' matches none of the 5 convolutions"),
        (dict(exclude=['head', 'had']), "'had' matches none"),
        (dict(layers={'backbone.7': 2}), "'backbone.7' matches none"),
    ],
)
def test_bad_input_changes_nothing(kwargs, message):
    model = make_model()
    with pytest.raises(ValueError, match=message):
        convert_model(model, **kwargs)
    assert not parts(model)


def test_a_stock_backbone_keeps_its_weights():
    """The foreign blocks' kernels are points already: nothing is lost."""
    torch.manual_seed(0)
    model = ResNet(18, base_channels=8, stem_channels=8)
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            points = torch.zeros_like(module.weight)
            points[:, :, 1, 1] = module.weight.data[:, :, 1, 1]
            module.weight.data.copy_(points)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = model(image)
        report = convert_model(model, p=4)
        after = model(image)
    assert len(report.converted) == 16
    for a, b in zip(before, after):
        torch.testing.assert_close(a, b)


def test_report_prints_what_was_switched_and_what_was_left():
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)),
        *(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)),
    )
    report = convert_model(model, p=4, exclude='4', layers={'3': 2})
    lines = str(report).splitlines()
    assert [' '.join(line.split()) for line in lines[2:6]] == [
        'converted 2 1, 2 HetConv, p=4',
        'converted 1 3 HetConv, p=2',
        f'left 1 0 {report.left[0].reason}',
        'left 1 4 it is excluded',
    ]
    assert lines[-1].startswith('3 of 5 convolutions converted')
    many = nn.Sequential(*(nn.Conv2d(8, 8, 3) for _ in range(50)))
    text = str(convert_model(many, p=4))
    assert '0 ... 49' in text
    assert len(text.splitlines()) == 5
