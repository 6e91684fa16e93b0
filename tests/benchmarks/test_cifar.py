"""The CIFAR-10 scripts on a few images of the test's own."""

import csv
import importlib
import pickle
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


@pytest.fixture
def script(monkeypatch, tmp_path):
    """Imports a script as Python does when it is run."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def run(monkeypatch, module, *words):
    monkeypatch.setattr(sys, 'argv', ['script', *map(str, words)])
    module.main()


def made_up(count, seed=0):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return images, random.integers(0, 10, count)


@pytest.fixture
def official(tmp_path):
    """Python batches of 20 images each, as the official ones are."""
    for number, name in enumerate([f'data_batch_{i}' for i in range(1, 6)] + ['test_batch']):
        images, labels = made_up(20, number)
        batch = {b'data': images.reshape(20, -1), b'labels': labels.tolist()}
        (tmp_path / name).write_bytes(pickle.dumps(batch, protocol=2))
    return tmp_path


def test_official_batches(script, official):
    images, labels = script('cifar_data').load_split(official, 'train')
    expected = np.concatenate([made_up(20, i)[0] for i in range(5)])
    assert torch.equal(images, torch.from_numpy(expected))
    assert labels.tolist()[:20] == made_up(20, 0)[1].tolist()


def test_a_batch_that_would_run_code_is_refused(script, official):
    (official / 'test_batch').write_bytes(pickle.dumps(Path))
    with pytest.raises(pickle.UnpicklingError, match='has no place'):
        script('cifar_data').load_split(official, 'test')


def test_mosaics_in_a_zip(script, tmp_path):
    images, labels = made_up(6)
    tiles = images.reshape(2, 3, 3, 32, 32).transpose(0, 3, 1, 4, 2)
    mosaic = np.ascontiguousarray(tiles.reshape(64, 96, 3)[..., ::-1])
    np.save(tmp_path / 'test_labels.npy', labels.astype(np.uint8))
    with zipfile.ZipFile(tmp_path / 'pack.zip', 'w') as pack:
        pack.writestr('test_00.png', cv2.imencode('.png', mosaic)[1].tobytes())
    read, numbers = script('cifar_data').load_split(tmp_path, 'test')
    assert torch.equal(read, torch.from_numpy(images))
    assert numbers.tolist() == labels.tolist()
    with pytest.raises(ValueError, match='neither'):
        script('cifar_data').load_split(tmp_path, 'train')


def test_augmented_images_are_shifted_and_flipped_originals(script):
    data = script('cifar_data')
    images, labels = made_up(8)
    images = torch.from_numpy(images)
    generator = torch.Generator().manual_seed(0)
    loader = data.DeviceLoader(images, torch.arange(8), 3, True, generator=generator)
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    mean, std = torch.tensor(data.MEAN), torch.tensor(data.STD)
    batches = list(loader)
    assert [len(x) for x, _ in batches] == [3, 3, 2] and len(loader) == 3
    flips = 0
    for x, number in (pair for batch in batches for pair in zip(*batch)):
        pixels = (x.permute(1, 2, 0) * std + mean).mul(255).round().byte()
        pixels = pixels.permute(2, 0, 1)
        crops = padded[number].unfold(1, 32, 1).unfold(2, 32, 1)
        crops = crops.permute(1, 2, 0, 3, 4).flatten(0, 1)
        plain = (crops == pixels).flatten(1).all(1).any()
        flipped = (crops.flip(-1) == pixels).flatten(1).all(1).any()
        assert plain or flipped
        flips += flipped.item()
    assert 0 < flips < 8
    assert sorted(torch.cat([y for _, y in batches]).tolist()) == [*range(8)]


def rows_of(path):
    return list(csv.DictReader(path.open()))


def test_the_table_goes_on_where_it_was(script, official, monkeypatch):
    out = official / 'rows.csv'
    words = ('--data', official, '--width', 0.25, '--epochs', 2, '--out', out)
    module = script('cifar10')
    run(monkeypatch, module, *words, '--p', 4)
    run(monkeypatch, module, *words, '--p', 4, 1, '--conv', 'het', 'gwc4')
    rows = rows_of(out)
    assert [row['conv'] for row in rows] == ['het4', 'dense', 'gwc4']
    macs = [int(row['macs']) for row in rows]
    assert macs[0] < macs[1]
    for row in rows:
        curve = row['curve_test'].split()
        assert row['curve_epoch'] == '1 2' and row['final'] == curve[-1]
        assert float(row['best']) == max(map(float, curve)) <= 100


def test_a_training_that_was_killed_ends_with_the_same_weights(script, official, monkeypatch):
    module, training = script('cifar10'), script('cifar_train')
    words = ('--data', official, '--width', 0.25, '--epochs', 3, '--conv', 'dense')
    words += ('--label-smoothing', 0.1, '--batch-size', 32)

    def save_and_note(self, model, optimizer, loader, step):
        save(self, model, optimizer, loader, step)
        steps.append(step)
        if steps == [4, 8]:
            raise KeyboardInterrupt

    steps = []
    save = training.TrainingState.save
    monkeypatch.setattr(training.TrainingState, 'save', save_and_note)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, module, *words, '--out', official / 'a.csv', '--save', official / 'a')
    assert not (official / 'a.csv').exists()
    run(monkeypatch, module, *words, '--out', official / 'a.csv', '--save', official / 'a')
    run(monkeypatch, module, *words, '--out', official / 'b.csv', '--save', official / 'b')
    assert steps == [4, 8, 12, 4, 8, 12]
    (stopped,), (whole,) = rows_of(official / 'a.csv'), rows_of(official / 'b.csv')
    same = ('curve_epoch', 'curve_test', 'curve_train', 'final', 'label_smoothing')
    assert [stopped[key] for key in same] == [whole[key] for key in same]
    assert stopped['curve_epoch'] == '1 2 3'
    a, b = (torch.load(next((official / name).iterdir())) for name in 'ab')
    assert all(torch.equal(a[key], b[key]) for key in b)
    assert not any((official / 'cache').rglob('*.pth'))


@pytest.mark.parametrize('amp', [[], ['--amp']])
def test_a_conversion_trains_the_network_of_the_table(script, official, monkeypatch, amp):
    words = ('--data', official, '--width', 0.25, '--epochs', 1, *amp)
    kept, own, out = (official / name for name in ('kept', 'own', 'rows.csv'))
    dense = ('--conv', 'dense', '--save', kept)
    run(monkeypatch, script('cifar10'), *words, *dense, '--out', out)
    folder = ('--work-dir', own, '--out', official / 'conversion.csv')
    none = ('--p', 2, '--ways', 'data-free', '--fine-tune', 0)
    run(monkeypatch, script('conversion_cifar'), *words, *folder, *none)
    names = [path.name for path in kept.iterdir()]
    assert names == [path.name for path in own.iterdir()] and len(names) == 1
    table, alone = (torch.load(at / names[0]) for at in (kept, own))
    assert all(torch.equal(table[key], alone[key]) for key in table)
    converted = rows_of(official / 'conversion.csv')
    assert converted[0]['accuracy'] == rows_of(out)[0]['final']


def test_overfitting_learns_the_same_part(script, official, monkeypatch):
    module = script('overfitting')
    images, labels = made_up(200)
    split = torch.from_numpy(images), torch.from_numpy(labels)
    part = module.take_share(split, 0.25, 3)
    assert part[0].shape == (50, 3, 32, 32)
    at = [next(i for i, image in enumerate(split[0]) if image.equal(chosen)) for chosen in part[0]]
    assert len(set(at)) == 50 and part[1].equal(split[1][at])
    assert part[0].equal(module.take_share(split, 0.25, 3)[0])
    assert not part[0].equal(module.take_share(split, 0.25, 4)[0])

    out = official / 'rows.csv'
    words = ('--data', official, '--width', 0.25, '--epochs', 1, '--out', out)
    words += ('--batch-size', 25, '--seeds', 0, '--share')
    run(monkeypatch, module, *words, 0.5)
    run(monkeypatch, module, *words, 1, 0.5)
    rows = rows_of(out)
    found = [(row['share'], row['conv'], row['images']) for row in rows]
    assert found == [
        ('0.5', 'dense', '50'),
        ('0.5', 'het4', '50'),
        ('1.0', 'dense', '100'),
        ('1.0', 'het4', '100'),
    ]
    # As many images seen: two passes over the half.
    assert [row['curve_epoch'] for row in rows] == ['2', '2', '1', '1']
    for row in rows:
        gap = float(row['train']) - float(row['final'])
        assert float(row['gap']) == pytest.approx(gap, abs=0.01)
    with pytest.raises(SystemExit):
        run(monkeypatch, module, *words, 0)


def test_macs_of_the_papers_table(script):
    """Exact counts of VGG-16 with its 512-512-10 head, in millions."""
    module, models = script('cifar10'), script('cifar_models')
    for p, macs in ((1, 313.46), (4, 105.85), (16, 53.94)):
        cfg = dict(type='HetConv', p=p) if p > 1 else None
        sizes = module.count(models.build('vgg16', cfg))
        assert round(sizes['macs'] / 1e6, 2) == macs


def test_conversion_rows(script, official, monkeypatch):
    out = official / 'rows.csv'
    module = script('conversion_cifar')
    run(
        monkeypatch,
        module,
        *('--data', official, '--width', 0.25, '--epochs', 1, '--calib', 64),
        *('--p', 4, '--fine-tune', 0, 1, '--scratch', '--out', out),
        *('--work-dir', official / 'work'),
    )
    rows = rows_of(out)
    found = {(row['way'], row['p'], row['tuned_epochs']) for row in rows}
    assert ('dense', '1', '0') in found and ('scratch', '4', '2') in found
    for way in module.WAYS:
        assert {(way, '4', '0'), (way, '4', '1')} <= found
    for row in rows:
        is_tuned = row['tuned_epochs'] == '1'
        assert row['tuning_lr'] == ('0.01' if is_tuned else '')
    count = len(rows)
    run(
        monkeypatch,
        module,
        *('--data', official, '--width', 0.25, '--epochs', 1, '--calib', 64),
        *('--p', 4, '--fine-tune', 0, '--out', out),
        *('--work-dir', official / 'work'),
    )
    assert len(rows_of(out)) == count


def test_a_distillation_is_judged_on_images_that_it_did_not_see(script, official, monkeypatch):
    trained, module = script('trained_resnets'), script('distillation_cifar')
    for name, value in (('HELD_OUT', 20), ('BATCH', 10), ('CALIBRATED', 20)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr('mmdet_hetconv.convert.distillation.batches.IMAGES', 4)
    state = {f'module.{key}': value for key, value in trained.ResNet(20).state_dict().items()}
    torch.save(dict(state_dict=state), official / trained.CHECKPOINTS[20])
    seen = []
    monkeypatch.setattr(module, 'calibrate', lambda dense, het, batches: seen.extend(batches))
    out = official / 'rows.csv'
    words = ('--data', official, '--weights', official, '--depth', 20, '--p', 4)
    words += ('--images', 40, '--steps', 2, '--held-out', '--out', out)
    run(monkeypatch, module, *words)
    run(monkeypatch, module, *words)
    (row,) = rows_of(out)
    assert (row['network'], row['p'], row['steps_made']) == ('resnet20', '4', '2')
    run(monkeypatch, module, *words, '--per-layer')
    assert [row['chosen'] for row in rows_of(out)] == ['uniform', 'per layer']
    del seen[2:]
    judged = trained.normalised(trained.load_images(official, 'train')[0][-20:])
    assert len(torch.cat(seen)) == 20
    assert not any(image.equal(other) for image in torch.cat(seen) for other in judged)


def test_a_fine_tuning_has_labels_and_the_teacher(script, official, monkeypatch):
    trained = script('trained_resnets')
    for name, value in (('HELD_OUT', 20), ('BATCH', 10), ('CALIBRATED', 20)):
        monkeypatch.setattr(script('distillation_cifar'), name, value)
    module = script('finetuning_cifar')
    state = {f'module.{key}': value for key, value in trained.ResNet(20).state_dict().items()}
    torch.save(dict(state_dict=state), official / trained.CHECKPOINTS[20])
    taught, train = [], module.train
    distilled, distil = [], module.distil

    def noted(*args, **kinds):
        taught.append(kinds['teacher'])
        train(*args, **kinds)

    def noted_distil(*args, **kinds):
        distilled.append(distil(*args, **kinds).steps)

    monkeypatch.setattr(module, 'train', noted)
    monkeypatch.setattr(module, 'distil', noted_distil)
    out = official / 'tuned.csv'
    words = ('--data', official, '--weights', official, '--depth', 20, '--p', 4)
    words += ('--epochs', 1, '--held-out', '--out', out)
    run(monkeypatch, module, *words, '--permute')
    run(monkeypatch, module, *words, '--permute')
    assert distilled == []
    run(monkeypatch, module, *words, '--labels-only', '--distil-steps', 2)
    assert distilled == [2]
    assert [teacher is None for teacher in taught] == [False, True]
    assert [row['arrangement'] for row in rows_of(out)] == ['permuted', 'blocked']
    assert [row['distil_steps'] for row in rows_of(out)] == ['0', '2']
    assert all(float(row['fine_tuned']) >= 0 for row in rows_of(out))
