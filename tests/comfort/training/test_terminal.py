"""What is shown of a training, and what goes to its log file alone."""

import io
import sys
import warnings

import pytest
from mmengine.config import Config

from mmdet_hetconv.comfort.training import terminal
from mmdet_hetconv.comfort.training.terminal import TerminalRunner, shown_progress

from .test_hooks import Line, Numbers, Score


def train(folder, epochs=2, **train_cfg):
    loader = dict(dataset=Numbers(), sampler=dict(type='DefaultSampler'))
    cfg = dict(train_cfg=train_cfg or dict(by_epoch=True, max_epochs=epochs))
    runner = TerminalRunner(
        Line(),
        str(folder),
        train_dataloader=loader,
        val_dataloader=loader,
        val_cfg={},
        val_evaluator=[Score()],
        **cfg,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.125)),
        experiment_name=str(folder),
        cfg=Config(cfg),
    )
    with shown_progress(runner):
        runner.train()
    (log,) = folder.glob('*/*.log')
    return log.read_text()


def test_short_lines_and_a_whole_log(tmp_path, capsys):
    log = train(tmp_path)
    shown = capsys.readouterr().out
    for words in ('Config:', 'System environment', 'Hooks will be executed', 'Epoch(train)'):
        assert words in log and words not in shown
    assert 'epoch 1/2  step 1/2  loss ' in shown and 'lr 1.25e-01' in shown
    assert 'epoch 2/2  step 2/2  loss ' in shown
    assert 'validation  step 2/2' in shown
    assert 'score: 0.2000' in shown  # the result stays
    assert len(shown.splitlines()) < 20


def test_a_training_that_counts_iterations(tmp_path, capsys):
    train(tmp_path, by_epoch=False, max_iters=3, val_interval=3)
    assert 'training  step 3/3  loss ' in capsys.readouterr().out


def test_a_slow_training_has_a_line_every_half_minute(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(terminal.time, 'monotonic', lambda: now)
    hook = terminal.ProgressHook()
    for step in range(1, 21):
        now += 13.5
        hook._show('epoch 1/1', step, 100)
    steps = [int(line.split()[3].split('/')[0]) for line in capsys.readouterr().out.splitlines()]
    assert steps == [1, 3, 6, 9, 10, 13, 16, 19]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_on_a_terminal(tmp_path, monkeypatch):
    out = Terminal()
    monkeypatch.setattr(sys, 'stdout', out)
    monkeypatch.setenv('TERM', 'xterm')
    train(tmp_path, epochs=1)
    assert '━' in out.getvalue() and 'validation' in out.getvalue()
    assert 'score: 0.2000' in out.getvalue()
    assert sys.stdout is out
    assert '\x1b[?25h' in out.getvalue()  # the cursor is shown again


@pytest.mark.parametrize('tool', ['summary', 'plot_curves'])
def test_other_packages_are_silent_in_tools(tool):
    from tests.tools.entry import load_main

    with warnings.catch_warnings(record=True) as caught:
        load_main(tool)
        warnings.warn('pkg_resources is deprecated as an API', UserWarning, stacklevel=1)
    assert not caught
