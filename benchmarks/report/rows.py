"""Rows of results: grouped, averaged, and what made them."""

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from mmdet_hetconv.utils.errors import UserError

Row = dict[str, str]
CLASSIFIER = ('network', 'width', 'epochs', 'batch_size', 'lr', 'amp', 'label_smoothing')


def number(text: str) -> float:
    return float(text) if text else float('nan')


def mean_and_spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean, and the standard deviation of several values."""
    text = f'{mean(values):.{digits}f}'
    if len(values) > 1:
        text += f' ± {stdev(values):.{digits}f}'
    return text


def column(rows: Sequence[Row], key: str) -> list[float]:
    return [number(row[key]) for row in rows]


def grouped(rows: Sequence[Row], keys: Sequence[str]) -> dict[tuple[str, ...], list[Row]]:
    """Rows by their values of some columns, in the order they appear."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        key = tuple(row.get(name, '') for name in keys)
        groups.setdefault(key, []).append(row)
    return groups


def by_macs(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each convolution, dense first, then the most MACs first."""
    convs = {key: found for (key,), found in grouped(rows, ['conv']).items()}
    order = sorted(convs, key=lambda conv: (conv != 'dense', -number(convs[conv][0]['macs'])))
    return {conv: convs[conv] for conv in order}


def check_dense(convs: dict[str, list[Row]], where: str) -> list[Row]:
    """The rows of the dense network, without which nothing can be compared.

    Raises:
        UserError: there are none.
    """
    if 'dense' not in convs:
        raise UserError(
            f'{where}: no row of the dense network beside {", ".join(convs)}; '
            'run the same command with --conv dense'
        )
    return convs['dense']


def setting(keys: Sequence[str], values: Sequence[str]) -> str:
    """A group in words: 'vgg16, width 0.25, 3 epochs, amp'."""
    words = []
    for key, value in zip(keys, values):
        if key in ('network', 'detector', 'data'):
            words.append(value)
        elif key.endswith('epochs'):
            unit = key.replace('_', ' ').removesuffix('s' * (value == '1'))
            words.append(f'{value} {unit}')
        elif value == 'True':
            words.append(key.replace('_', ' '))
        elif value and value != 'False':
            words.append(f'{key.replace("_", " ")} {value}')
    return ', '.join(words)


def origin(path: Path, rows: Sequence[Row], command: str) -> str:
    """What made a table: the file, the machine and the command."""
    machines = ', '.join(
        dict.fromkeys(f'{row["machine"]}, torch {row["torch"]}' for row in rows if 'machine' in row)
    )
    dates = sorted({row['date'] for row in rows if 'date' in row})
    text = f'From `{path.name}`'
    if machines:
        days = dict.fromkeys((dates[0], dates[-1]))
        text += f' ({machines}, {" to ".join(days)})'
    return f'{text}, made by\n\n```bash\n{command}\n```\n'


def flags(row: Row, names: Sequence[str]) -> str:
    """The options of a command that a row tells; True is a mere flag."""
    words = []
    for name in names:
        value = row.get(name)
        if value and value != 'False':
            words.append(f'--{name.replace("_", "-")}')
            words += [value] * (value != 'True')
    return ' '.join(words)


def options(**values: Sequence[str]) -> str:
    """--seeds 0 1: options of a command, numbers in their order."""

    def order(word: str) -> tuple[float, str]:
        return (number(word) if re.fullmatch(r'[\d.]+', word) else 0.0, word)

    return ' '.join(
        f'--{name.replace("_", "-")} ' + ' '.join(sorted(set(words), key=order))
        for name, words in values.items()
        if words
    )


def conv_options(rows: Sequence[Row]) -> str:
    """--conv and --p as the scripts want them."""
    names = [row['conv'] for row in rows]
    parts = [name[3:] for name in names if re.fullmatch(r'het\d+', name)]
    others = [name for name in names if not name.startswith('het')]
    return options(conv=others + ['het'] * bool(parts), p=parts)


def seeds_of(rows: Sequence[Row]) -> str:
    return ' '.join(sorted({row['seed'] for row in rows}, key=number))


def against(rows: Sequence[Row], dense: Sequence[Row], key: str) -> float:
    """Mean of the differences of equal seeds; NaN where none is equal."""
    reference = {row['seed']: number(row[key]) for row in dense}
    pairs = [row for row in rows if row['seed'] in reference]
    if not pairs:
        return float('nan')
    return mean(number(row[key]) - reference[row['seed']] for row in pairs)
