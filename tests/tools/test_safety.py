"""A checkpoint that would run code, by every way into the tools."""

import json
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

import pytest
import torch

from .entry import TOOLS, error_of, evaluate, load_main, train
from .test_bad_input import Malicious, World

REFUSED = r'is refused: it holds posix\.mkdir, and loading that could run'


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Data, a config, and malicious.pth on the disk and on a server."""
    # As in a new process; mmengine would download into the user's folder.
    monkeypatch.delenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', raising=False)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    world = World(tmp_path)
    world.evil = tmp_path / 'served' / 'malicious.pth'
    world.evil.parent.mkdir()
    torch.save(
        dict(
            state_dict={},
            meta=dict(epoch=1, iter=3),
            message_hub={},
            x=Malicious(tmp_path / 'owned'),
        ),
        world.evil,
    )
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=world.evil.parent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    world.url = f'http://127.0.0.1:{server.server_port}/malicious.pth'
    # What mmengine takes open-mmlab://evil for.
    (tmp_path / 'open_mmlab.json').write_text(json.dumps({'evil': world.url}))
    yield world
    server.shutdown()
    server.server_close()
    assert not (tmp_path / 'owned').exists()


def in_init_cfg(world, place):
    return world.write(
        "model['backbone']['init_cfg'] = dict(\n"
        f"    type='Pretrained', checkpoint={str(place)!r})\n"
    )


def in_work_dir(world):
    world.work.mkdir()
    (world.work / 'epoch_1.pth').write_bytes(world.evil.read_bytes())
    (world.work / 'last_checkpoint').write_text(str(world.work / 'epoch_1.pth'))
    return (*world.argv(), '--resume')


def test_the_file_would_run_code(world):
    """Else none of the others would say anything."""
    torch.load(world.evil, weights_only=False)
    (world.path / 'owned').rmdir()
    torch.hub.load_state_dict_from_url(world.url)
    (world.path / 'owned').rmdir()


TRAIN = {
    'load_from': lambda w: w.set(f'load_from={w.evil}'),
    'load_from, address': lambda w: w.set(f'load_from={w.url}'),
    'init_cfg': lambda w: in_init_cfg(w, w.evil),
    'init_cfg, address': lambda w: in_init_cfg(w, w.url),
    'init_cfg, model zoo': lambda w: in_init_cfg(w, 'open-mmlab://evil'),
    'resume': lambda w: (*w.argv(), '--resume', w.evil),
    'resume by the config': lambda w: w.set('resume=True', f'load_from={w.evil}'),
    'newest of the work dir': in_work_dir,
}


@pytest.mark.parametrize('way', TRAIN)
def test_train(world, way):
    message = error_of(train, *TRAIN[way](world))
    assert re.search(REFUSED, message), message


@pytest.mark.parametrize('place', ['evil', 'url'])
def test_evaluate(world, place):
    config, *rest = world.argv()
    message = error_of(evaluate, config, getattr(world, place), *rest)
    assert re.search(REFUSED, message), message


OTHERS = {
    'deploy': lambda w: (w.config, w.evil, '--out', w.path / 'a.pth'),
    'export_onnx': lambda w: (w.config, w.evil, '--out', w.path / 'a.onnx'),
    'convert_checkpoint': lambda w: (
        *(w.config, w.evil, w.config),
        *('--out', w.path / 'a.pth', '--method', 'free'),
    ),
    'convert_checkpoint, address': lambda w: (
        *(w.config, w.url, w.config),
        *('--out', w.path / 'a.pth', '--method', 'free'),
    ),
    'infer': lambda w: (w.config, w.evil, w.image),
    'slim': lambda w: (w.config, w.evil, '--out', w.path / 'slim'),
    'demo_web': lambda w: (w.config, w.evil, '--port', 0),
    'compare': lambda w: (
        *('--a', w.config, w.evil, '--b', w.config, w.evil),
        *('--images', w.image.parent, '--out', w.path / 'page'),
    ),
}

if find_spec('gradio') is None:
    del OTHERS['demo_web']


@pytest.mark.parametrize('way', OTHERS)
def test_others(world, way):
    name = way.split(',')[0]
    message = error_of(load_main(name), *OTHERS[way](world))
    assert re.search(REFUSED, message), message
    assert not list(world.path.glob('a.*'))


def test_no_tool_is_forgotten():
    """Each tool is above, or takes no checkpoint."""
    harmless = {'benchmark', 'browse_data', 'get_flops', 'plot_curves', 'summary'}
    tested = {'train', 'test', 'demo_web', *(way.split(',')[0] for way in OTHERS)}
    assert {path.stem for path in TOOLS.glob('*.py')} - harmless <= tested


def test_a_config_in_a_checkpoint_is_not_run(world):
    """Runner.resume() of mmengine executes meta['config']."""
    program = f'import os\nos.mkdir({str(world.path / "owned")!r})\n'
    path = world.path / 'polite.pth'
    torch.save(
        dict(state_dict={}, meta=dict(epoch=1, iter=3, config=program), message_hub={}), path
    )
    message = error_of(train, *world.argv(), '--resume', path)
    assert 'polite.pth is refused: it holds a config' in message


def test_only_our_programs_set_the_switch(world, monkeypatch):
    """And against the opposite, which torch cannot have beside it."""
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    message = error_of(train, *world.set(f'load_from={world.url}'))
    assert re.search(REFUSED, message), message
