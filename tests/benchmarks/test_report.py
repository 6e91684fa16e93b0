"""The page of results, from CSV files of the test's own."""

import csv
import re
from itertools import product
from statistics import mean, stdev

import pytest

from benchmarks.report import write_results
from benchmarks.report.__main__ import main
from mmdet_hetconv.utils.errors import UserError
from mmdet_hetconv.utils.table import share_saved, with_unit
from tests.tools.entry import error_of

MACHINE = dict(machine='a computer', torch='9.8.7', date='2031-01-02')
MACS = dict(dense=31_111_000, het2=17_222_000, het4=10_333_000)
MACS |= dict(gwc4=12_444_000, dwc=5_555_000)
TRAINING = dict(network='vgg16', width='0.37', epochs='3', batch_size='77')
TRAINING |= dict(lr='0.023', amp='True')


def write(path, rows):
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, rows[0] | MACHINE)
        writer.writeheader()
        writer.writerows(row | MACHINE for row in rows)


def cifar_rows():
    for index, (seed, conv) in enumerate(product(('4', '6'), MACS)):
        final = f'{71 + 1.37 * index:.2f}'
        yield TRAINING | dict(
            conv=conv,
            seed=seed,
            macs=MACS[conv],
            parameters=MACS[conv] // 17,
            best=f'{90 + 0.13 * index:.2f}',
            final=final,
            train=f'{80 + 0.31 * index:.2f}',
            curve_epoch='1 2 3',
            curve_test=f'51.00 62.00 {final}',
            curve_train='41.00 52.00 63.00',
        )


def overfitting_rows():
    settings = product(('1.0', '0.05'), ('4', '6'), ('dense', 'het4'))
    for index, (share, seed, conv) in enumerate(settings):
        yield TRAINING | dict(
            conv=conv,
            seed=seed,
            share=share,
            images=int(31_000 * float(share)),
            macs=MACS[conv],
            train=f'{83 + 0.77 * index:.2f}',
            final=f'{63 + 0.29 * index:.2f}',
            gap=f'{20 + 0.48 * index:.2f}',
            curve_epoch='1 2',
            curve_test=f'{50 + index}.00 63.00',
            curve_train=f'{40 + index}.00 83.00',
        )


def conversion_rows():
    setting = {k: v for k, v in TRAINING.items() if k != 'epochs'}
    setting |= dict(dense_epochs='3', calibration_images='333', seed='4')
    results = [('dense', '1', '0'), ('dense', '1', '2')]
    results += product(('centre tap', 'calibrated'), ('2', '4'), ('0', '2'))
    results += [('calibrated', '3=2 7=4', '0'), ('scratch', '4', '5')]
    for index, (way, p, tuned) in enumerate(results):
        accuracy = f'{66 - 1.71 * index:.2f}'
        rate = '' if tuned == '0' or way == 'scratch' else '0.0123'
        result = dict(way=way, p=p, tuned_epochs=tuned, tuning_lr=rate)
        yield setting | result | dict(accuracy=accuracy)


def distillation_rows():
    for index, (p, seed) in enumerate(product(('2', '4'), ('4', '6'))):
        yield dict(
            network='resnet44',
            p=p,
            chosen='per layer' if p == '4' else 'uniform',
            arrangement='permuted' if seed == '6' and p == '4' else 'blocked',
            images='777',
            steps='88',
            seed=seed,
            judged_on='test',
            dense='91.37',
            calibrated=f'{73 + 0.36 * index:.2f}',
            distilled=f'{83 + 0.41 * index:.2f}',
            cpu_seconds='1234',
        )


def tuning_rows():
    for p, accuracy in (('2', '90.61'), ('4', '88.47')):
        yield dict(
            network='resnet44',
            p=p,
            arrangement='permuted',
            distil_steps='17',
            taught='labels and features',
            epochs='3.0',
            rate='0.0543',
            amp='True',
            seed='4',
            judged_on='test',
            dense='91.37',
            calibrated='73.19',
            fine_tuned=accuracy,
            cpu_seconds='1234',
        )


def detection_rows():
    setting = dict(detector='ssd300', data='cells', network='reduced')
    setting |= dict(image='96x64', where='full', epochs='21', batch_size='5')
    setting |= dict(lr='0.0007', amp='False')
    runs = [(conv, 'scratch', '0') for conv in MACS]
    runs += [('het4', 'calibrated', '0'), ('het4', 'calibrated', '2')]
    for index, (seed, run) in enumerate(product(('4', '6'), runs)):
        conv, start, tuned = run
        yield setting | dict(
            conv=conv,
            start=start,
            tuned_epochs=tuned,
            calib='12' if start == 'calibrated' else '',
            seed=seed,
            macs=MACS[conv] * 41,
            parameters=MACS[conv] // 7,
            mAP=f'{31 + 1.3 * index:.1f}',
            mAP_50=f'{61 + 0.7 * index:.1f}',
        )


def distilled_detectors():
    """One detector from scratch, then distilled on features and by what is there now."""
    setting = next(detection_rows())
    runs = [
        ('dense', 'scratch', '0', '', '54.3'),
        ('het4', 'distilled on features', '0', '', '49.1'),
    ]
    runs += [('het4', 'distilled', '0', '', '53.2'), ('het4', 'distilled', '1', '0.000035', '53.6')]
    for conv, start, tuned, rate, accuracy in runs:
        calib = '12' if conv == 'het4' else ''
        row = dict(conv=conv, start=start, tuned_epochs=tuned, tuned_lr=rate, calib=calib)
        yield setting | row | dict(mAP=accuracy, seed='4')


def detection_times():
    setting = dict(detector='ssd300', data='cells', network='reduced')
    setting |= dict(image='96x64', where='full')
    for conv, macs in MACS.items():
        ms = f'{macs / 1e6 + 0.01:.2f}'
        yield setting | dict(conv=conv, latency_ms=ms)


def detector_times():
    for form, ms in (('dense deployed', '51.25'), ('het deployed', '22.75')):
        gain = f'{51.25 / float(ms):.3f}'
        yield dict(
            config='a_config',
            form=form,
            image='96x160',
            whole='True',
            batch='2',
            ms=ms,
            p10='20.125',
            p90='60.125',
            gmacs='3.375',
            gain=gain,
            efficiency='0.875',
        )


def layer_times():
    for p, gain in (('2', '1.625'), ('4', '2.375'), ('4', '2.125')):
        yield {
            'layer': '128@50',
            'batch': '3',
            'p': p,
            'time gain': gain,
            'efficiency': '0.75',
            'precision': 'fp16',
        }


@pytest.fixture
def results(tmp_path):
    """A folder with all that can be measured on CIFAR-10 and detectors."""
    folder = tmp_path / 'rows'
    folder.mkdir()
    write(folder / 'cifar10.csv', list(cifar_rows()))
    write(folder / 'overfitting.csv', list(overfitting_rows()))
    write(folder / 'conversion_cifar.csv', list(conversion_rows()))
    write(folder / 'distillation_cifar.csv', list(distillation_rows()))
    write(folder / 'finetuning_cifar.csv', list(tuning_rows()))
    write(folder / 'detection.csv', list(detection_rows()))
    write(folder / 'detection_distilled.csv', list(distilled_detectors()))
    write(folder / 'detection_latency.csv', list(detection_times()))
    write(folder / 'a_config_cpu.csv', list(detector_times()))
    write(folder / 'latency_gpu.csv', list(layer_times()))
    points = [dict(convolution='dense', macs=313.7e6, accuracy='94.06')]
    points.append(dict(convolution='het4', macs=105.9e6, accuracy='93.93'))
    source = dict(network='vgg16', source='A paper, P=1')
    write(folder / 'published.csv', [point | source for point in points])
    return folder


def edit(path, change):
    """Rewrite a CSV file without the rows for which `change` is None."""
    rows = list(csv.DictReader(path.open()))
    rows = [row for row in map(change, rows) if row is not None]
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def decimals(text):
    """Numbers with a decimal point, as they are written."""
    return set(re.findall(r'(?<![\d.])[-+]?\d+\.\d+(?![\d.])', text))


DISTILLED = ('dense', 'calibrated', 'distilled')


def derived(rows, by):
    """What may be written of columns: means, spreads and differences."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in by), []).append(row)
    texts = set()
    for key in ('final', 'best', 'train', 'gap', 'accuracy', 'mAP', 'mAP_50', *DISTILLED):
        if key not in rows[0]:
            continue
        values = [[float(row[key]) for row in g] for g in groups.values()]
        means = [mean(group) for group in values]
        spreads = [stdev(group) for group in values if len(group) > 1]
        for digits in (1, 2):
            texts |= {f'{value:.{digits}f}' for value in means + spreads}
            texts |= {f'{a - b:+.{digits}f}' for a in means for b in means}
    return texts


def test_every_number_comes_from_the_rows(results, tmp_path):
    page = write_results(results, tmp_path / 'page')
    text = page.read_text()
    allowed = {'0.5', *(str(value) for value in TRAINING.values())}
    allowed |= {row['latency_ms'] for row in detection_times()}
    allowed |= {'0.0007', '0.0123', '9.8', '8.7'}  # of torch's version
    allowed |= derived(list(cifar_rows()), ['conv'])
    allowed |= derived(list(overfitting_rows()), ['conv', 'share'])
    allowed |= {row['share'] for row in overfitting_rows()}
    conversions = list(conversion_rows())
    allowed |= derived(conversions, ['way', 'p', 'tuned_epochs'])
    allowed |= derived(list(distillation_rows()), ['p', 'arrangement'])
    allowed |= {value for row in tuning_rows() for value in row.values() if '.' in value}
    allowed.add('0.00')  # spread of one value that is the same for all seeds
    keys = ['conv', 'start', 'tuned_epochs']
    allowed |= derived(list(detection_rows()), keys)
    allowed |= derived(list(distilled_detectors()), keys) | {'0.05'}
    for row in (*detector_times(), *layer_times()):
        allowed |= {value for value in row.values() if '.' in value}
        if 'time gain' in row:
            allowed.add(f'{float(row["time gain"]):.2f}')
    allowed.add(f'{mean((2.375, 2.125)):.2f}')  # the median of two
    for macs in MACS.values():
        costs = (macs, macs // 17, macs * 41, macs // 7)
        allowed |= {with_unit(cost).split()[0] for cost in costs}
        allowed.add(share_saved(MACS['dense'], macs).split()[0])
    assert len(decimals(text)) > 60
    assert decimals(text) - allowed == set()


def test_what_the_table_says(results, tmp_path):
    text = write_results(results, tmp_path).read_text()
    rows = list(cifar_rows())
    het, dense = (
        [float(row['final']) for row in rows if row['conv'] == conv] for conv in ('het4', 'dense')
    )
    line = next(x for x in text.splitlines() if x.startswith('| het4 | 10.3'))
    assert f'| {mean(het):.2f} ± {stdev(het):.2f} |' in line
    assert f'| {mean(het) - mean(dense):+.2f} |' in line
    assert line.endswith('| 4 6 |')
    # Nearest in MACs, not in accuracy, is what a rival is compared with.
    assert '| gwc4 | 12.444 M |' in text and '| het4 | 10.333 M |' in text
    for row in conversion_rows():
        assert row['accuracy'] in text
    assert '| 2 epochs at 0.0123, test % | P=2 | P=4 |' in text
    assert '--fine-tune 2 --tuning-lr 0.0123 \\\n    --p 2 4 --scratch' in text
    files = ('cifar10', 'overfitting', 'conversion_cifar', 'distillation_cifar')
    files += ('finetuning_cifar', 'detection')
    for name in files:
        assert f'From `{name}.csv` (a computer' in text
        assert f'python benchmarks/{name}.py --data' in text
    line = next(
        x for x in text.splitlines() if x.startswith('| resnet44 | 2 | uniform | blocked |')
    )
    assert '| 777 | 88 | test | 91.37 ± 0.00 | 73.18 ± 0.25 | 83.20 ± 0.29 |' in line
    assert '--images 777 --steps 88 \\\n    --depth 44 --p 2 --seeds 4 --device cuda\n' in text
    assert '--depth 44 --p 4 --seeds 4 --per-layer --device cuda\n' in text
    assert '--depth 44 --p 4 --seeds 6 --per-layer --permute --device cuda\n' in text
    assert '| permuted | 17 | labels and features | 3.0 | 0.0543 | True | test |' in text
    assert '--distil-steps 17 --epochs 3.0 --rate 0.0543 \\\n    --depth 44 --p 4' in text
    assert '--depth 44 --p 4 --seeds 4 --device cuda --amp --permute' in text
    assert '--width 0.37 --epochs 3 --batch-size 77 --lr 0.023 --amp' in text
    assert '--conv dense dwc gwc4 het --p 2 4 --seeds 4 6' in text
    assert '--convert 4 --calib 12\n' in text
    assert '| het4 | distilled on features | 0 | 49.1 | -5.2 | 4 |' in text
    assert '| het4 | distilled | 1 | 53.6 | -0.7 | 4 |' in text
    tuned = '--calib 12 --ways distilled --tuned-epochs 1 --tuning-rate 0.05\n'
    assert f'--seeds 4 --convert 4 {tuned}' in text


def test_a_difference_is_between_equal_seeds(results, tmp_path):
    def keep(row):
        lonely = row['conv'] == 'het2' and row['seed'] == '4'
        return None if lonely else row

    edit(results / 'cifar10.csv', keep)
    text = write_results(results, tmp_path).read_text()
    values = {row['conv']: float(row['final']) for row in cifar_rows() if row['seed'] == '6'}
    line = next(x for x in text.splitlines() if x.startswith('| het2 | 17.2'))
    assert f'| {values["het2"] - values["dense"]:+.2f} |' in line
    assert line.endswith('| 6 |')


def test_times_name_the_command_that_takes_them(results, tmp_path):
    text = write_results(results, tmp_path).read_text()
    assert '| a_config | het deployed | 96x160 | 2 | 22.75 |' in text
    assert (
        'tools/benchmark.py configs/a_config.py --shape 96 160 --whole '
        '--device cuda --batch 2 \\\n    --out benchmarks/results/a_config_cpu'
    ) in text
    assert '| P=4 | 2 | 2.12 | 2.25 | 2.38 | 0.75 |' in text
    assert 'latency.py --device cuda --precision fp16 --batch 3' in text


def test_learning_rates_are_not_mixed(results, tmp_path):
    path = results / 'detection.csv'
    rows = list(csv.DictReader(path.open()))
    write(path, rows + [row | dict(lr='0.0009') for row in rows])
    text = write_results(results, tmp_path).read_text()
    assert '--batch-size 5 --lr 0.0007' in text
    assert '--batch-size 5 --lr 0.0009' in text


def test_a_flag_of_a_training_is_a_flag_of_its_command(results, tmp_path):
    path = results / 'detection.csv'
    rows = list(csv.DictReader(path.open()))
    write(path, [row | dict(lr_by_density='True', amp='True') for row in rows])
    text = write_results(results, tmp_path).read_text()
    assert '#### reduced, image 96x64, where full, 21 epochs, batch size 5, lr' in text
    assert 'lr 0.0007, lr by density, amp\n' in text
    assert '--lr 0.0007 --lr-by-density --amp --reduced --image 96 64 ' in text


def test_every_detector_and_data_set_has_its_picture(results, tmp_path):
    path = results / 'detection.csv'
    rows = list(csv.DictReader(path.open()))
    others = [row | dict(data='cars') for row in rows]
    others += [row | dict(detector='faster_rcnn_r18') for row in rows]
    write(path, rows + others)
    text = write_results(results, tmp_path).read_text()
    for name in ('ssd300 on cells', 'ssd300 on cars', 'faster_rcnn_r18 on '):
        assert text.count(f'### {name}') == 1
    names = ('ssd300_cells', 'ssd300_cars', 'faster_rcnn_r18_cells')
    drawn = {path.name for path in tmp_path.glob('detection*.png')}
    assert drawn == {f'detection_{name}.png' for name in names}


@pytest.mark.parametrize('change', [dict(machine='another'), dict(where='backbone')])
def test_latency_is_of_the_network_and_the_machine(results, tmp_path, change):
    times = {row['latency_ms'] for row in detection_times()}
    text = write_results(results, tmp_path).read_text()
    assert times <= decimals(text)
    edit(results / 'detection_latency.csv', lambda row: row | change)
    text = write_results(results, tmp_path).read_text()
    assert not times & decimals(text)


def test_the_aim_that_is_missed_is_named(results, tmp_path):
    def lower(row):
        return row | dict(final='70.00') if row['conv'] == 'het2' else row

    edit(results / 'cifar10.csv', lower)
    text = write_results(results, tmp_path).read_text()
    assert re.search(r'More than 0.5 points below dense: het2 \(-\d', text)


@pytest.mark.parametrize('name', ['cifar10', 'overfitting', 'conversion_cifar', 'detection'])
def test_a_table_without_dense_is_refused(results, tmp_path, name):
    def drop(row):
        return None if 'dense' in (row.get('conv'), row.get('way')) else row

    edit(results / f'{name}.csv', drop)
    out = ('--results', results, '--out', tmp_path)
    message = error_of(main, *out)
    assert f'{name}.csv' in message and 'no row of the dense' in message
    assert not (tmp_path / 'all.md').exists()


def test_what_is_not_measured_is_said(results, tmp_path):
    for path in results.glob('*.csv'):
        if path.name != 'overfitting.csv':
            path.unlink()
    text = write_results(results, tmp_path / 'page').read_text()
    assert text.count('Not measured yet') == 9
    drawn = [path.name for path in (tmp_path / 'page').glob('*.png')]
    assert drawn == ['overfitting_0.png']
    with pytest.raises(UserError, match='nowhere is not a folder'):
        write_results(tmp_path / 'nowhere', tmp_path)


def test_every_picture_is_shown(results, tmp_path):
    write_results(results, tmp_path)
    shown = re.findall(r'\]\((.*?\.png)\)', (tmp_path / 'all.md').read_text())
    assert {path.name for path in tmp_path.glob('*.png')} == set(shown)
    assert len(shown) == 4
