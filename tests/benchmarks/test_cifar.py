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
def script(monkeypatch):
    """Imports a script as Python does when it is run."""
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
    for number, name in enumerate(
        [f'data_batch_{i}' for i in range(1, 6)] + ['test_batch']
    ):
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
    loader = data.DeviceLoader(
        images, torch.arange(8), 3, True, generator=generator
    )
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


def test_the_table_goes_on_where_it_was(script, official, monkeypatch):
    out = official / 'rows.csv'
    words = ('--data', official, '--width', 0.25, '--epochs', 1, '--out', out)
    module = script('cifar10')
    run(monkeypatch, module, *words, '--p', 4)
    run(monkeypatch, module, *words, '--p', 4, 1, '--conv', 'het', 'gwc4')
    rows = list(csv.DictReader(out.open()))
    assert [row['conv'] for row in rows] == ['het4', 'dense', 'gwc4']
    macs = [int(row['macs']) for row in rows]
    assert macs[0] < macs[1]
    assert all(0 <= float(row['final']) <= 100 for row in rows)


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
    rows = list(csv.DictReader(out.open()))
    found = {(row['way'], row['p'], row['tuned_epochs']) for row in rows}
    assert ('dense', '1', '0') in found and ('scratch', '4', '2') in found
    for way in module.WAYS:
        assert {(way, '4', '0'), (way, '4', '1')} <= found
    count = len(rows)
    run(
        monkeypatch,
        module,
        *('--data', official, '--width', 0.25, '--epochs', 1, '--calib', 64),
        *('--p', 4, '--fine-tune', 0, '--out', out),
        *('--work-dir', official / 'work'),
    )
    assert len(list(csv.DictReader(out.open()))) == count
