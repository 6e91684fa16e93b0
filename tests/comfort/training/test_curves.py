"""Curves of a training, as a picture."""

import json

import pytest

from mmdet_hetconv.comfort.training.hooks.curves import draw_curves, read_run
from mmdet_hetconv.utils.errors import UserError
from tests.tools.entry import error_of, load_main


def write(folder, started, first, last, loss=1.0, results=True):
    """Scalars as mmengine writes them, ten iterations an epoch."""
    path = folder / started / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    lines = []
    for step in range(first, last + 1, 5):
        epoch = -(-step // 10)
        lines.append(
            dict(lr=0.1 / step, loss=loss, loss_cls=0.5, epoch=epoch, iter=step, step=step)
        )
        if step % 10 == 0 and results:
            lines.append({'coco/bbox_mAP': epoch / 10, 'coco/bbox_mAP_50': 0.5, 'step': epoch})
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return path


def test_a_resumed_training_goes_on_where_it_was(tmp_path):
    write(tmp_path, '20260101_000000', 5, 30)
    write(tmp_path, '20260102_000000', 25, 40, loss=2.0)
    run = read_run(tmp_path)
    steps, losses = run.series(run.rows, 'loss')
    assert steps == [5, 10, 15, 20, 25, 30, 35, 40]
    assert losses == [1.0] * 4 + [2.0] * 4
    assert [run.place(step) for step in steps] == [step / 10 for step in steps]
    assert run.series(run.results, 'coco/bbox_mAP') == ([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4])


def test_a_training_that_starts_again_forgets_the_first(tmp_path):
    write(tmp_path, '20260101_000000', 5, 40)
    write(tmp_path, '20260102_000000', 5, 10, loss=3.0)
    run = read_run(tmp_path)
    assert [*run.rows] == [5, 10] and [*run.results] == [1]


def test_some_trainings_in_one_picture(tmp_path, monkeypatch, capsys):
    for name in 'ab':
        write(tmp_path / name, '20260101_000000', 5, 40, results=name == 'a')
    drawn = []
    monkeypatch.setattr('matplotlib.axes.Axes.plot', lambda axes, x, *y, **k: drawn.append((x, k)))
    main = load_main('plot_curves')
    main([str(tmp_path / 'a'), str(tmp_path / 'b'), '--out', str(tmp_path / 'both.png')])
    labels = [k['label'] for _, k in drawn if 'label' in k]
    assert labels == ['a: training', 'a: bbox_mAP', 'a: bbox_mAP_50', 'b: training']
    assert (tmp_path / 'both.png').read_bytes()[:4] == b'\x89PNG'


def test_what_is_no_training(tmp_path):
    main = load_main('plot_curves')
    assert f'{tmp_path} has no scalars of a training' in error_of(main, tmp_path)
    path = write(tmp_path, '20260101_000000', 5, 40)
    path.write_text(path.read_text() + 'half a li')
    assert f'{path}, line 13 is no row of scalars' in error_of(main, tmp_path)
    assert 'is a folder' in error_of(main, tmp_path, '--out', tmp_path)


def test_iterations_without_epochs(tmp_path):
    path = write(tmp_path, '20260101_000000', 5, 40)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row.pop('epoch', None)
    path.write_text('\n'.join(map(json.dumps, rows)))
    run = read_run(tmp_path)
    assert run.place(25) == 25
    draw_curves([run], tmp_path / 'a.png')
    with pytest.raises(UserError):
        read_run(tmp_path / 'nowhere')


def drawn(folder, monkeypatch, rows):
    """What is plotted of a training: places and values of the lines with a label, and looks."""
    path = folder / 'run' / '20260101_000000' / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    found = []
    monkeypatch.setattr(
        'matplotlib.figure.Figure.savefig', lambda figure, *a, **k: found.append(figure)
    )
    draw_curves([read_run(folder / 'run')], folder / 'a.png')
    return found[0].axes


def step(number, loss, epoch=None):
    return dict(lr=0.1, loss=loss, epoch=epoch or number, iter=number, step=number)


def test_one_epoch_is_seen(tmp_path, monkeypatch):
    rows = [step(9, 2.0, 1), {'coco/bbox_mAP': 1.0, 'coco/bbox_mAP_50': 0.0, 'step': 1}]
    losses, metrics, rates = drawn(tmp_path, monkeypatch, rows)
    for axes in (losses, metrics, rates):
        for line in axes.lines:
            assert line.get_marker() != 'None'
            (value,) = line.get_ydata()
            bottom, top = axes.get_ylim()
            assert bottom < value < top or (value == bottom == 0)
    assert metrics.get_ylim()[0] < 0
    assert all(float(tick).is_integer() for tick in rates.get_xticks())


def test_few_points_are_neither_smoothed_nor_cut(tmp_path, monkeypatch):
    losses, *_ = drawn(tmp_path, monkeypatch, [step(1, 9.0), step(2, 1.0)])
    (line,) = losses.lines
    assert [*line.get_ydata()] == [9.0, 1.0]
    assert losses.get_ylim()[1] > 9


@pytest.mark.parametrize('wrong', [float('nan'), float('inf')])
@pytest.mark.parametrize('fine', [0, 30])
def test_losses_that_are_no_numbers_are_left_out(wrong, fine, tmp_path, monkeypatch):
    rows = [step(n, 1.0) for n in range(1, fine + 1)]
    rows += [step(n, wrong) for n in range(fine + 1, fine + 31)]
    rows.append({'val_loss': wrong, 'coco/bbox_mAP': wrong, 'step': fine + 30})
    losses, *_ = drawn(tmp_path, monkeypatch, rows)
    assert [*losses.lines[0].get_ydata()] == [1.0] * fine


def test_a_name_with_an_underscore_is_in_the_legend(tmp_path):
    runs = []
    for name in ('_a', 'b'):
        write(tmp_path / name, '20260101_000000', 5, 40)
        runs.append(read_run(tmp_path / name))
    figures = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('matplotlib.figure.Figure.savefig', lambda f, *a, **k: figures.append(f))
        draw_curves(runs, tmp_path / 'c.png')
    texts = [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()]
    assert texts == ['run _a: training', 'b: training']
