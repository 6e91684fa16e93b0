"""Train, evaluate and resume, through the tools themselves."""

import json
import pickle

import pytest

from tests import tiny

from .entry import evaluate, train

# With all anchors and proposals sampled and no flips, a step has nothing
# random in it: mmengine does not restore the state of random generators.
NOTHING_RANDOM = """
model['train_cfg']['rpn'] = dict(sampler=dict(num=4096))
model['train_cfg']['rcnn'] = dict(sampler=dict(num=64))
train_cfg['max_epochs'] = 3
"""


def argv(path, data, work, *pairs):
    return [
        *(str(path), '--data-root', str(data), '--work-dir', str(work)),
        *('--cfg-options', *tiny.SCALES, *pairs),
    ]


def metrics_of(work):
    (path,) = work.glob('*/*.json')
    return json.loads(path.read_text())


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder with data, a config and an uninterrupted training."""
    path = tmp_path_factory.mktemp('run')
    tiny.write_coco(path / 'coco')
    config = tiny.write_config(path / 'tiny.py', NOTHING_RANDOM)
    flips = 'train_dataloader.dataset.pipeline.3.prob=0.0'
    train(argv(config, path / 'coco', path / 'whole', flips))
    return path


def test_training_leaves_checkpoints_and_learns(trained, capsys):
    work = trained / 'whole'
    assert sorted(p.name for p in work.glob('*.pth')) == [
        'epoch_1.pth',
        'epoch_2.pth',
        'epoch_3.pth',
    ]
    (path,) = work.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    losses = [line['loss'] for line in lines if 'loss' in line]
    assert len(losses) == 9
    assert losses[-1] < 0.9 * losses[0]
    assert sum('coco/bbox_mAP' in line for line in lines) == 3


def test_evaluation(trained):
    work = trained / 'evaluated'
    checkpoint = trained / 'whole' / 'epoch_3.pth'
    config, *rest = argv(trained / 'tiny.py', trained / 'coco', work)
    out = work / 'predictions.pkl'
    matrix = work / 'matrix.png'
    words = ['--out', str(out), '--show-dir', 'drawn', '--confusion-matrix', str(matrix)]
    evaluate([config, str(checkpoint), *words, *rest])
    assert {'coco/bbox_mAP_50', 'coco/disc_precision'} <= set(metrics_of(work))
    assert matrix.read_bytes()[:4] == b'\x89PNG'
    assert len(pickle.loads(out.read_bytes())) == tiny.SPLITS['val']
    assert len(list(work.glob('*/drawn/*.jpg'))) == tiny.SPLITS['val']


def test_evaluation_of_a_dense_checkpoint(trained, capsys):
    dense = argv(
        trained / 'tiny.py',
        trained / 'coco',
        trained / 'dense',
        'model.backbone.conv_cfg=None',
        'train_cfg.max_epochs=1',
    )
    train(dense)
    config, *rest = argv(trained / 'tiny.py', trained / 'coco', trained / 'projected')
    checkpoint = trained / 'dense' / 'epoch_1.pth'
    evaluate([config, str(checkpoint), *rest])
    assert 'coco/bbox_mAP' in metrics_of(trained / 'projected')
    (log,) = (trained / 'projected').glob('*/*.log')
    assert log.read_text().count('projected onto heterogeneous') == 1


def test_images_without_annotations(trained):
    """As of COCO's test-dev: results are written, and nothing is counted."""
    ann_file = trained / 'image_info_test-dev.json'
    val = trained / 'coco/annotations/instances_val2017.json'
    content = json.loads(val.read_text())
    del content['annotations']
    ann_file.write_text(json.dumps(content))
    work = trained / 'formatted'
    config, *rest = argv(
        trained / 'tiny.py',
        trained / 'coco',
        work,
        f'test_dataloader.dataset.ann_file={ann_file}',
        f'test_evaluator.ann_file={ann_file}',
        'test_evaluator.format_only=True',
        f'test_evaluator.outfile_prefix={work}/results',
    )
    evaluate([config, str(trained / 'whole' / 'epoch_3.pth'), *rest])
    found = json.loads((work / 'results.bbox.json').read_text())
    assert {entry['image_id'] for entry in found} == {1, 2, 3}


def test_evaluation_of_a_config_that_cannot_train(trained):
    config = tiny.write_config(
        trained / 'evaluates.py',
        'train_dataloader = None\ntrain_cfg = None\noptim_wrapper = None\nparam_scheduler = None\n',
    )
    work = trained / 'evaluated_only'
    evaluate(
        [
            *(str(config), str(trained / 'whole' / 'epoch_3.pth')),
            *('--data-root', str(trained / 'coco'), '--work-dir', str(work)),
            *('--cfg-options', *tiny.SCALES[1:]),
        ]
    )
    assert 'coco/bbox_mAP' in metrics_of(work)


def test_nothing_to_resume(trained, capsys):
    work = trained / 'fresh'
    train(
        [*argv(trained / 'tiny.py', trained / 'coco', work, 'train_cfg.max_epochs=1'), '--resume']
    )
    output = capsys.readouterr()
    assert f'Nothing to resume in {work}' in output.out + output.err
    assert (work / 'epoch_1.pth').exists()


def test_degenerate_boxes_and_tta(tmp_path):
    """The first image of the VOC data set has a box without area."""
    data = tiny.write_voc(tmp_path / 'voc')
    config = tiny.write_config(tmp_path / 'tiny.py')
    work = tmp_path / 'work'
    train(argv(config, data, work))
    (path,) = work.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    losses = [line['loss'] for line in lines if 'loss' in line]
    assert len(losses) == 6
    assert all(0 < loss < 100 for loss in losses)
    assert sum('pascal_voc/mAP' in line for line in lines) == 2

    name, *rest = argv(config, data, tmp_path / 'augmented')
    evaluate([name, str(work / 'epoch_2.pth'), '--tta', *rest])
    assert 'pascal_voc/mAP' in metrics_of(tmp_path / 'augmented')


def test_skipped_checks(trained, monkeypatch):
    """Nothing is read before the run."""

    def read(*args):
        raise AssertionError('checked')

    monkeypatch.setattr('mmdet_hetconv.comfort.training.check_config.check_data', read)
    config, *rest = argv(trained / 'tiny.py', trained / 'coco', trained / 'unchecked')
    evaluate([config, str(trained / 'dense' / 'epoch_1.pth'), '--skip-checks', *rest])
    assert 'coco/bbox_mAP' in metrics_of(trained / 'unchecked')
