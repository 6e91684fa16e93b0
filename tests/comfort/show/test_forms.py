"""A detector's forms, and uploads that are none of an image's business."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from mmdet_hetconv.comfort.show.forms import DEPLOYED, HET, Forms, read_upload
from mmdet_hetconv.layers import HetConv2d
from mmdet_hetconv.utils.errors import UserError


@pytest.fixture(scope='module')
def forms(world):
    return Forms(*map(str, world.het))


def test_forms_compute_the_same(forms, world):
    image = str(world.images / 'val_1.jpg')
    assert forms.names == ['dense, same function', HET, DEPLOYED]
    found = [forms.detect(image, name) for name in forms.names]
    scores = [f.sample.pred_instances.scores.numpy() for f in found]
    assert len(scores[0]) > 20
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], atol=1e-3)
    assert all(f.ms > 0 for f in found)
    het = [
        sum(isinstance(m, HetConv2d) for m in i.model.modules())
        for i in forms._inferencers.values()
    ]
    assert het == [0, 16, 0]


def test_score_decides_what_is_shown(forms, world):
    found = forms.detect(str(world.images / 'val_1.jpg'), HET)
    scores = found.sample.pred_instances.scores
    score = float(scores.median())
    counts = forms.counts(found, HET, score)
    assert sum(counts.values()) == int((scores > score).sum())
    drawn = forms.draw(found, HET, score)
    untouched = forms.draw(found, HET, 1.0)
    assert drawn.shape == untouched.shape == found.image.shape
    # not found.image itself: matplotlib before 3.11 shows an image up to a
    # pixel beside its place (its pull requests 30184 and 31021)
    empty = found.sample.clone()
    empty.pred_instances = empty.pred_instances[:0]
    empty = dataclasses.replace(found, sample=empty)
    np.testing.assert_array_equal(untouched, forms.draw(empty, HET, 0.0))
    rgb = found.image[..., ::-1].mean((0, 1))
    assert np.ptp(rgb) > 15, 'the colours of the image tell their order'
    np.testing.assert_allclose(untouched.mean((0, 1)), rgb, atol=5)
    assert (drawn != untouched).any()


def test_dense_detector_of_its_own(world):
    files = [tuple(map(str, pair)) for pair in (world.het, world.dense)]
    forms = Forms(*files[0], files[1])
    assert forms.names == ['dense', HET, DEPLOYED]
    image = str(world.images / 'val_1.jpg')
    a, b = (forms.detect(image, name) for name in ('dense', HET))
    assert not np.allclose(a.sample.pred_instances.scores[:5], b.sample.pred_instances.scores[:5])


def text(path):
    path.write_text('no image')


def half(path):
    noise = np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)
    Image.fromarray(noise).save(path, 'PNG')
    path.write_bytes(path.read_bytes()[:9999])


def many_pixels(path):
    """A small file of 56 million pixels."""
    Image.new('1', (8000, 7000)).save(path, 'PNG')


def bomb(path):
    """So many that Pillow refuses to open it."""
    Image.new('1', (14000, 13000)).save(path, 'PNG')


@pytest.mark.parametrize(
    'make, message',
    [
        (text, 'is not an image that can be read'),
        (half, 'is truncated'),
        (many_pixels, 'has more than 50 million pixels'),
        (bomb, 'has more than 50 million pixels'),
    ],
)
def test_uploads_that_are_refused(make, message, tmp_path):
    path = tmp_path / 'picture.png'
    make(path)
    with pytest.raises(UserError, match=message) as error:
        read_upload(path)
    assert 'picture.png' in str(error.value)
    assert str(tmp_path) not in str(error.value)
