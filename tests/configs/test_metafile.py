from pathlib import Path

import pytest
import yaml

from benchmarks.write_metafile import measure, zoo

ROOT = Path(__file__).parents[2]


def models() -> dict[str, dict]:
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    found = {}
    for path in index['Import']:
        metafile = yaml.safe_load((ROOT / path).read_text())
        found.update({m['Name']: m for m in metafile['Models']})
    return found


def test_every_config_is_listed():
    assert sorted(models()) == [path.stem for path in zoo()]
    for name, model in models().items():
        assert (ROOT / model['Config']).stem == name


@pytest.mark.parametrize('name', ['faster_rcnn_het_r50', 'ssd300_het_vgg16_full_voc'])
def test_numbers_are_measured(name):
    model = models()[name]
    assert model['Metadata'] == measure(ROOT / model['Config'])


def test_savings_are_possible():
    for name, model in models().items():
        data = model['Metadata']
        assert data['MACs'] <= data['MACs executed'], name
        assert data['MACs executed'] < data['MACs dense'], name
        assert data['Parameters'] < data['Parameters dense'], name
