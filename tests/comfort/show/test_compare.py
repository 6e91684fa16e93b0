"""tools/compare.py: its page, in a browser too."""

import json
import re
import shutil

import pytest

from mmdet_hetconv.comfort.show.comparison.page import THRESHOLDS
from tests import tiny
from tests.tools.entry import error_of, load_main

from .browser import open_browser

compare = load_main('compare')
# A file's name that would end the script it stands in.
HOSTILE = 'a<b>&"</script><b id=x>.jpg'
START = THRESHOLDS.index(0.5)


def argv(world, *rest):
    words = ('--a', *world.dense, '--b', *world.het, *rest)
    return [str(word) for word in words]


@pytest.fixture(scope='module')
def page(world, tmp_path_factory):
    """Four images, one of which is not annotated."""
    path = tmp_path_factory.mktemp('compare')
    shutil.copytree(world.images, path / 'images')
    hostile = path / 'images' / HOSTILE
    hostile.parent.mkdir(parents=True)
    tiny.draw(path / 'drawn.jpg', 7)
    shutil.move(path / 'drawn.jpg', hostile)
    compare(
        argv(
            world,
            *('--images', path / 'images', '--out', path / 'out'),
            *('--ann-file', world.ann_file),
            *('--score-thr', 0.52, '--rounds', 3),
        )
    )
    return path / 'out' / 'index.html'


def data_of(page):
    text = page.read_text()
    found = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', text)
    return json.loads(found[1])


def test_one_file_without_addresses(page):
    assert [p.name for p in page.parent.iterdir()] == ['index.html']
    text = page.read_text()
    addresses = set(re.findall(r'\w+://[^\s\'"<]*', text))
    assert addresses == {'http://www.w3.org/2000/svg'}  # a name, not a place
    assert "default-src 'none'" in text
    assert len(text) < 100_000


def test_summary(page, world):
    text = page.read_text()
    rows = {
        name: re.findall('<td>(.*?)</td>', cells)
        for name, cells in re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', text)
    }
    assert rows['HetConv layers'] == ['0', '16', '']
    a, b, ratio = rows['Parameters']
    assert a.endswith(' k') and b.endswith(' k')
    assert ratio == f'× {float(b[:-2]) / float(a[:-2]):.2f}'
    a, b, ratio = rows['Multiply-adds (MACs)']
    assert float(b[:-2]) < 0.6 * float(a[:-2])
    for cell in rows['Time of an image, median (10 % to 90 %)'][:2]:
        middle, low, high = map(float, re.findall(r'[\d.]+', cell))
        assert 0 < low <= middle <= high
    assert 0 <= float(rows['AP'][0]) <= 1
    assert '64 × 64 pixels' in text and '4 images of' in text
    assert 'on the 3 images' in text


def test_what_the_page_shows(page):
    data = data_of(page)
    assert data['classes'] == list(tiny.CLASSES)
    assert data['thresholds'][data['start']] == 0.5
    images = {image['name']: image for image in data['images']}
    assert set(images) == {f'val_{n}.jpg' for n in range(3)} | {HOSTILE}
    assert images[HOSTILE]['truth'] is None
    assert images['val_1.jpg']['truth'] == [[0, 6, 12, 18, 18], [1, 34, 20, 26, 6]]
    order = [i['disagreement'][data['start']] for i in data['images']]
    assert order == sorted(order, reverse=True)
    assert 0 < order[0] <= 1


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    found = open_browser(tmp_path_factory.mktemp('profile'))
    yield found
    found.close()


BOXES = """
const item = [...document.querySelectorAll('#images > li')].find(
    (li) => li.querySelector('h3').textContent === arguments[0]);
return [...item.querySelectorAll('svg')].map((svg) => [
    Number(svg.dataset.boxes), svg.querySelectorAll('.box').length,
    svg.getAttribute('aria-label')]);
"""
NAMES = """
return [...document.querySelectorAll('#images h3')].map((h) => h.textContent)
"""
SET = """
const element = document.getElementById(arguments[0]);
element.value = arguments[1];
element.dispatchEvent(new Event('input'));
element.dispatchEvent(new Event('change'));
"""


def expected(image, at):
    """How many boxes of A and B have at least that score."""
    return [sum(box[5] >= THRESHOLDS[at] for box in found) for found in image['found']]


def test_in_a_browser(page, browser):
    data = data_of(page)
    browser.resize(1400, 3500)  # pictures far away are not drawn
    browser.open(page.as_uri())
    browser.wait(
        'return [...document.images].length === 11 && '
        '[...document.images].every((i) => i.complete && i.naturalWidth)'
    )
    assert browser.run('return document.getElementById("x")') is None
    assert browser.run(NAMES) == [image['name'] for image in data['images']]
    for image in data['images']:
        shown = browser.run(BOXES, image['name'])
        truth = [] if image['truth'] is None else [len(image['truth'])]
        assert [count for count, _, _ in shown] == truth + expected(image, START)
        assert [drawn for _, drawn, _ in shown] == [n for n, _, _ in shown]
    label = browser.run(BOXES, 'val_1.jpg')[0][2]
    assert label == 'Ground truth: disc, bar'

    # Another score, by the slider, and another order.
    at = START + 3
    browser.run(SET, 'score', at)
    browser.run(SET, 'order', 'least')
    assert (
        browser.run('return document.getElementById("score-text").textContent')
        == f'{THRESHOLDS[at]:.2f}'
    )
    by_name = {image['name']: image for image in data['images']}
    for name, image in by_name.items():
        assert [n for n, _, _ in browser.run(BOXES, name)][-2:] == expected(image, at)
    values = [by_name[n]['disagreement'][at] for n in browser.run(NAMES)]
    assert values == sorted(values)
    browser.run(SET, 'order', 'name')
    assert browser.run(NAMES) == sorted(by_name)
    assert f'{sum(values) / 4:.2f}' in browser.run(
        'return document.getElementById("status").textContent'
    )

    # One picture with A on the left of a line that the keyboard moves.
    browser.click('input[value=slider]')
    clips = 'return [...document.querySelectorAll(".slide")].map((d) => [...d'
    clips += '.querySelectorAll("svg")].map((s) => s.style.clipPath))[0]'
    assert browser.run(clips) == ['inset(0px 50% 0px 0px)', 'inset(0px 0px 0px 50%)']
    browser.type('.slide + input', '\ue012' * 10)  # left arrow
    assert browser.run(clips) == ['inset(0px 60% 0px 0px)', 'inset(0px 0px 0px 40%)']

    assert browser.complaints() == []
    schemes = {a.split(':')[0] for a in browser.requests()}
    assert schemes <= {'file', 'blob', 'data', 'chrome'}


BAD = {
    'no folder': (lambda w, p: ('--images', p / 'no'), 'no is not a folder'),
    'other annotations': (
        lambda w, p: (*('--images', w.path / 'coco' / 'train2017'), *('--ann-file', w.ann_file)),
        'names no image in',
    ),
    'no checkpoint': (
        lambda w, p: (*('--images', w.images, '--a', w.dense[0], p / 'no.pth'),),
        'no.pth does not exist',
    ),
    'other detector': (
        lambda w, p: ('--images', w.images, '--a', w.dense[0], w.het[1]),
        'is a HetConv in the checkpoint',
    ),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input(world, tmp_path, case):
    make, message = BAD[case]
    words = argv(world, '--out', tmp_path / 'out', *make(world, tmp_path))
    assert message in error_of(compare, *words)
    assert not (tmp_path / 'out' / 'index.html').exists()


def test_images_of_another_size_than_annotated(world, tmp_path):
    """The truth would be in other places than the detections."""
    content = json.loads(world.ann_file.read_text())
    content['images'][1].update(width=48, height=64)
    ann_file = tmp_path / 'turned.json'
    ann_file.write_text(json.dumps(content))
    out = tmp_path / 'page'
    words = ('--images', world.images, '--ann-file', ann_file, '--out', out)
    message = error_of(compare, *argv(world, *words))
    assert 'val_1.jpg is loaded with 64 x 48 pixels, but' in message
    assert not list(out.glob('*'))
