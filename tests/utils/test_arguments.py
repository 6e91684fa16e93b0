"""Values of --cfg-options."""

import argparse

import pytest

from mmdet_hetconv.utils.arguments import add_cfg_options


def parsed(*words):
    parser = argparse.ArgumentParser()
    add_cfg_options(parser)
    return parser.parse_args(['--cfg-options', *words]).cfg_options


@pytest.mark.parametrize(
    'text, value',
    [
        ('3', 3),
        ('[a,b]', ['a', 'b']),
        ('(64,48)', (64, 48)),
        ("dict(type='A', p=-4)", dict(type='A', p=-4)),
        ("[dict(type='A', x=[1, dict(y=None)]), {'type': 'B'}]", None),
        # No such expressions: as mmengine takes them.
        ('{work_dir}/x', '{work_dir}/x'),
        ('dict(**x)', 'dict(**x)'),
        ('dict(type=A)', 'dict(type=A)'),
        ("dict(type=__import__('os'))", "dict(type=__import__('os'))"),
    ],
)
def test_values_are_numbers_words_lists_and_dicts(text, value):
    wanted = [dict(type='A', x=[1, dict(y=None)]), dict(type='B')] if value is None else value
    assert parsed(f'a.b={text}', 'c=1') == {'a.b': wanted, 'c': 1}
