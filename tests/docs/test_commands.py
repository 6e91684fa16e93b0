"""Every command of the documentation is one that the tools accept."""

import pytest

from .commands import PAGES, ROOT, check_page

WRONG = {
    'a flag': 'python tools/train.py configs/ssd300_het_vgg16.py --resumme',
    'a choice': 'python tools/test.py CONFIG CHECKPOINT --backend tensorrt',
    'a number': 'python tools/get_flops.py CONFIG --p four',
    'a config': 'python tools/train.py configs/faster_rcnn_het_r51.py',
    'a tool': 'python tools/trian.py configs/ssd300_het_vgg16.py',
    'through a script': 'tools/dist_train.sh configs/fcos_het_r50.py 2 --x',
    'a loop': 'for p in 2 a; do python tools/get_flops.py C --p $p; done',
    'a program': 'pyhton tools/train.py configs/ssd300_het_vgg16.py',
    'a target': 'make tests',
    'an extra': 'pip install mmdet_hetconv[onxx]',
    'a config of mim': 'mim train mmdet_hetconv faster_rcnn_het_r51.py',
    'a missing argument': 'python tools/deploy.py CONFIG CHECKPOINT',
}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_are_accepted(page, tmp_path):
    text = page.read_text(encoding='utf-8')
    checked = list(check_page(page, tmp_path))
    assert bool(checked) == ('```bash' in text)


@pytest.mark.parametrize('command', WRONG.values(), ids=WRONG)
def test_wrong_commands_are_found(command, tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(f'Text.\n\n```bash\n{command}\n```\n')
    (tmp_path / 'folder').mkdir()
    with pytest.raises(AssertionError):
        list(check_page(page, tmp_path / 'folder'))


def test_pages_are_found():
    names = {page.relative_to(ROOT).as_posix() for page in PAGES}
    assert {'README.md', 'docs/guide/pretrained_weights.md'} <= names
