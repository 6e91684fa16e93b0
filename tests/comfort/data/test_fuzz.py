"""Annotation files full of mistakes: one sentence, or mmdet can read them.

The suite tries a few hundred; ``FILES=10000 pytest tests/engine/test_fuzz.py``
as many as one likes of each layout. A number stands for one file for ever.
"""

import contextlib
import io
import math
import os
import random

import pytest
from mmdet.datasets import CocoDataset, XMLDataset

from mmdet_hetconv.comfort.data.coco import read_coco
from mmdet_hetconv.comfort.data.voc import read_voc
from mmdet_hetconv.utils.errors import UserError
from tests import tiny

from .mutate import mutate_bytes, mutate_json, mutate_xml

FILES = int(os.environ.get('FILES', 200))


def check_boxes(dataset):
    """mmdet reads what was accepted, and no box spoils the losses."""
    for number in range(len(dataset)):
        info = dataset.get_data_info(number)
        for instance in info['instances']:
            x1, y1, x2, y2 = map(float, instance['bbox'])
            assert max(map(abs, (x1, y1, x2, y2))) < 1e10
            assert x2 >= x1 and y2 >= y1
            inside = min(x2, info['width']) - max(x1, 0)
            assert math.isfinite(inside) and inside >= 0
            assert 0 <= instance['bbox_label'] < len(dataset.metainfo['classes'])


def is_accepted(number, read, load, named, longest):
    """Whether a file is read; if not, a sentence has to name it.

    Args:
        number: of the file.
        read: the reader that is tested.
        load: mmdet's data set, from the classes that were found.
        named: names of which the sentence has to hold one.
        longest: the most characters of the sentence.
    """
    try:
        found = read()
    except UserError as error:
        assert any(name in str(error) for name in named), number
        assert len(str(error)) < longest, number
        return False
    except Exception as error:
        raise AssertionError(f'file {number}') from error
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            dataset = load(found.classes)
        check_boxes(dataset)
    except Exception as error:
        raise AssertionError(f'file {number} was accepted') from error
    return True


def test_coco(tmp_path):
    root = tiny.write_coco(tmp_path, masks=True)
    path = root / 'annotations' / 'instances_val2017.json'
    original = path.read_bytes()

    def load(classes):
        return CocoDataset(
            ann_file=str(path),
            data_prefix=dict(img=''),
            metainfo=dict(classes=classes),
            pipeline=[],
            serialize_data=False,
        )

    accepted = 0
    for number in range(FILES):
        draw = random.Random(number)
        mutate = draw.choice((mutate_bytes, mutate_json, mutate_json))
        path.write_bytes(mutate(original, draw))
        accepted += is_accepted(number, lambda: read_coco(path), load, [path.name], 1000)
    assert 0.02 * FILES < accepted < 0.7 * FILES


def test_voc(tmp_path):
    root = tiny.write_voc(tmp_path / 'voc', ('val',))
    folder = root / 'Annotations'
    lines = root / 'ImageSets' / 'Main' / 'val.txt'
    xml = folder / 'val_1.xml'
    texts = {path: path.read_bytes() for path in (lines, xml)}

    def load(classes):
        return XMLDataset(
            data_root=str(root),
            ann_file=str(lines),
            data_prefix=dict(sub_data_root=''),
            metainfo=dict(classes=classes),
            pipeline=[],
            serialize_data=False,
        )

    accepted = 0
    for number in range(FILES):
        draw = random.Random(number)
        if draw.random() < 0.15:
            path, mutate = lines, mutate_bytes
        else:
            path = xml
            mutate = draw.choice((mutate_bytes, mutate_xml, mutate_xml))
        path.write_bytes(mutate(texts[path], draw))
        # A list with a wrong name in it: the file of that name.
        named = (path.name,) if path == xml else (path.name, '.xml')
        accepted += is_accepted(
            number, lambda: read_voc(lines, folder, 'JPEGImages'), load, named, 10_000
        )
        path.write_bytes(texts[path])
    assert 0.02 * FILES < accepted < 0.7 * FILES


@pytest.mark.parametrize('kind', ['entities', 'outside'])
def test_xml_that_unfolds_or_reaches_out(kind, tmp_path):
    """Entities: expat counts what they unfold to, and fetches no file."""
    root = tiny.write_voc(tmp_path / 'voc', ('val',))
    (tmp_path / 'secret').write_text('top')
    lines = ''.join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    declared = {
        'entities': f'<!ENTITY e0 "{"a" * 100}">{lines}',
        'outside': f'<!ENTITY e9 SYSTEM "file://{tmp_path}/secret">',
    }
    path = root / 'Annotations' / 'val_1.xml'
    path.write_text(
        f'<!DOCTYPE annotation [{declared[kind]}]><annotation><object><name>'
        '&e9;</name></object></annotation>'
    )
    with pytest.raises(UserError, match='val_1.xml') as caught:
        read_voc(root / 'ImageSets' / 'Main' / 'val.txt', root / 'Annotations')
    assert 'top' not in str(caught.value)
