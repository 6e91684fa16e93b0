"""tools/demo_web.py in a browser, where gradio is installed."""

import re
import socket

import numpy as np
import pytest
from PIL import Image

from mmdet_hetconv.comfort.show import web_demo
from mmdet_hetconv.comfort.show.forms import Forms
from tests.tools.entry import error_of, load_main

from .browser import open_browser

MAX_MB = 0.05
UPLOAD = '#upload input[type=file]'
TEXT = """
const field = document.querySelector('#text textarea, #text input');
return field && field.value.includes(arguments[0]) && field.value;
"""
SHOWN = 'return document.body.innerText.includes(arguments[0])'
PICTURE = """
const image = document.querySelector('#drawn img');
return image && image.complete && image.naturalWidth && image.src;
"""


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    pytest.importorskip('gradio', reason='gradio is not installed (pip install gradio)')
    found = open_browser(tmp_path_factory.mktemp('profile'))
    yield found
    found.close()


@pytest.fixture(scope='module')
def address(world, browser, tmp_path_factory):
    """A demo that is served; uploads go into a folder of the test's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp('uploads')
        patch.setenv('GRADIO_TEMP_DIR', str(folder))
        page = web_demo.build_page(Forms(*map(str, world.het)), MAX_MB)
        yield web_demo.launch(page, web_demo.LOCAL, 0, MAX_MB)
        page.close(verbose=False)


def objects(text):
    return sum(map(int, re.findall(r'(\d+) ×', text)))


def open_page(browser, address):
    browser.open(address)
    browser.wait(f'return document.querySelector("{UPLOAD}") !== null')


def test_forms_and_confidence(browser, address, world):
    open_page(browser, address)
    browser.type(UPLOAD, str(world.images / 'val_1.jpg'))
    assert ' ms; ' in browser.wait(TEXT, 'HetConv: ')
    first = browser.wait(PICTURE)
    for number, name in ((1, 'dense, same function: '), (3, 'deployed: ')):
        browser.click(f'#form label:nth-of-type({number}) input')
        assert ' ms; ' in browser.wait(TEXT, name)
    every = browser.wait(TEXT, 'deployed: ')
    browser.type('#score input[type=range]', '\ue010')  # the End key
    sure = browser.wait(
        f'const text = (function () {{{TEXT}}})(...arguments);return text !== arguments[1] && text',
        *('deployed: ', every),
    )
    assert objects(sure) < objects(every)
    assert sure.split(' ms')[0] == every.split(' ms')[0]  # only drawn again
    browser.wait(f'return (function () {{{PICTURE}}})() !== arguments[0]', first)
    hosts = {
        place.split('/')[2] for place in browser.requests() if place.startswith(('http', 'ws'))
    }
    assert hosts == {address.split('/')[2]}


def test_refused_uploads(browser, address, tmp_path):
    (tmp_path / 'notes.jpg').write_text('no image')
    open_page(browser, address)
    browser.type(UPLOAD, str(tmp_path / 'notes.jpg'))
    browser.wait(SHOWN, 'notes.jpg is not an image that can be read')

    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / 'large.png')
    assert (tmp_path / 'large.png').stat().st_size > MAX_MB * 2**20
    open_page(browser, address)
    browser.type(UPLOAD, str(tmp_path / 'large.png'))
    browser.wait(SHOWN, 'exceed the maximum allowed size')
    assert not browser.run(PICTURE)


def test_this_machine_only(address):
    """A server of all addresses would answer at 127.0.0.2 too."""
    port = int(address.rstrip('/').rpartition(':')[2])
    socket.create_connection(('127.0.0.1', port), 5).close()
    with pytest.raises(OSError):
        socket.create_connection(('127.0.0.2', port), 5)


def test_gradio_is_asked_for(monkeypatch, world):
    monkeypatch.setattr(web_demo, 'find_spec', lambda name: None)
    message = error_of(load_main('demo_web'), *world.het)
    assert 'pip install gradio' in message
