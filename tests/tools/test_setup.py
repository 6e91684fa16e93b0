"""setup.sh goes on where it was interrupted; with an interpreter that only
writes down what it is asked to do."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Stands for the user's Python and, copied by `-m venv`, for that of .venv. It
# fails at the command whose words stand in the file `fail`.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
    -c*|*check.py*) exit 0;;
esac
echo "$*" >>calls
if [ -e fail ] && echo "$*" | grep -qe "$(cat fail)"; then exit 1; fi
case "$*" in
    *'-m venv'*) mkdir -p "$3/bin" && cp python "$3/bin/python";;
esac
"""

STEPS = {
    'venv': '-m venv',
    'torch': 'install torch==',
    'lock': '--no-deps --requirement',
    'mmcv': 'build_mmcv.py',
    'project': '--editable',
}


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / 'a project'
    shutil.copytree(ROOT / 'tools/setup', folder / 'tools/setup')
    shutil.copytree(ROOT / 'requirements', folder / 'requirements')
    shutil.copy(ROOT / 'setup.cfg', folder)
    (folder / 'python').write_text(FAKE_PYTHON)
    (folder / 'python').chmod(0o755)
    # find_python.sh asks the interpreter where it is.
    (folder / 'tools/setup/find_python.sh').write_text('echo ./python')
    (folder / 'tools/setup/find_python.sh').chmod(0o755)
    return folder


def set_up(folder, *arguments):
    """Run it; its exit status and the steps that were begun."""
    (folder / 'calls').write_text('')
    result = subprocess.run(
        ['bash', folder / 'tools/setup/setup.sh', *arguments],
        env={**os.environ, 'XDG_CACHE_HOME': str(folder / 'cache')},
        capture_output=True,
        text=True,
    )
    calls = (folder / 'calls').read_text().splitlines()
    begun = [name for call in calls for name, part in STEPS.items() if part in call]
    return result.returncode, begun


def test_second_run_does_nothing(project):
    assert set_up(project) == (0, list(STEPS))
    assert set_up(project) == (0, [])


@pytest.mark.parametrize(
    'broken, begun_again',
    [
        ('venv', ['venv', 'torch', 'lock', 'mmcv', 'project']),
        ('torch', ['venv', 'torch', 'lock', 'mmcv', 'project']),
        ('lock', ['venv', 'torch', 'lock', 'mmcv', 'project']),
        ('mmcv', ['mmcv', 'project']),
        ('project', ['project']),
    ],
)
def test_interrupted_step_is_done_again(project, broken, begun_again):
    (project / 'fail').write_text(STEPS[broken])
    status, begun = set_up(project)
    assert status != 0 and begun[-1] == broken
    (project / 'fail').unlink()
    assert set_up(project) == (0, begun_again)
    assert set_up(project) == (0, [])


def test_changed_lock_makes_the_environment_anew(project):
    set_up(project)
    with open(project / 'requirements/lock.txt', 'a') as lock:
        lock.write('six==1.0\n')
    assert set_up(project) == (0, list(STEPS))


def test_moved_project_is_installed_again(project):
    set_up(project)
    moved = project.rename(project.with_name('moved'))
    assert set_up(moved) == (0, ['project'])


def test_lost_interpreter_makes_the_environment_anew(project):
    set_up(project)
    (project / '.venv/bin/python').unlink()
    assert set_up(project) == (0, list(STEPS))


def test_forks_have_their_own_environment(project):
    assert set_up(project) == (0, list(STEPS))
    assert set_up(project, 'onedl') == (0, list(STEPS))
    calls = (project / 'calls').read_text()
    assert '--package onedl-mmcv' in calls
    packages = (project / '.venv-onedl/packages').read_text().splitlines()
    names = {line.split('==')[0] for line in packages if line[:1] != '#'}
    assert {'torch', 'numpy', 'onedl-mmengine', 'onedl-mmdetection'} <= names
    assert not names & {'mmengine', 'mmdet', 'mmcv'}
    assert set_up(project) == (0, [])
    assert set_up(project, 'onedl') == (0, [])
