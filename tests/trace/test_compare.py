"""Two forms of a network, compared, and the changes that are to blame."""

import math

import pytest
import torch

from mmdet_hetconv.trace import difference, fewest, fewest_passing


def test_difference_is_relative():
    x = torch.tensor([3.0, 4.0])
    assert difference([x * 1.1], [x]) == pytest.approx(0.1)
    assert difference(dict(a=x, b=x), dict(a=x, b=x)) == 0
    nan = torch.tensor([float('nan'), 1.0])
    assert difference(nan, nan.clone()) == 0


@pytest.mark.parametrize(
    'found',
    [
        torch.ones(2, 1),
        torch.ones(2, dtype=torch.bfloat16),
        torch.tensor([1.0, float('nan')]),
        [],
        [torch.ones(2), torch.ones(2)],
    ],
)
def test_what_is_another_thing_is_infinitely_far(found):
    assert difference(found, torch.ones(2)) == math.inf


def test_other_floats_where_they_are_allowed():
    low = torch.ones(2, dtype=torch.bfloat16)
    assert difference(low, torch.ones(2), any_float=True) == 0


@pytest.mark.parametrize('wanted', [set(), {0}, {7}, {2, 3}, {0, 11, 19}])
def test_fewest_finds_what_is_needed_and_no_more(wanted):
    trials = []

    def works(tried):
        trials.append(tried)
        return wanted <= tried

    assert fewest(range(20), works) == wanted
    assert len(trials) <= 1 + 2 * len(wanted) * 6


def test_fewest_of_nothing():
    assert fewest([], lambda tried: True) == set()


def test_checks_that_pass_are_not_repeated_while_it_searches():
    put, asked = [], []

    def needs(*wanted):
        def check():
            asked.append(wanted)
            return put[-1].issuperset(wanted)

        return check

    found = fewest_passing('abcdefgh', lambda some: put.append(set(some)), [needs('c'), needs()])
    assert found == put[-1] == {'c'}
    assert asked.count(()) == 2 and asked.count(('c',)) > 2


def test_a_check_that_fails_only_behind_another_one():
    put = []
    checks = [lambda: 'a' in put[-1], lambda: 'a' not in put[-1] or 'b' in put[-1]]
    assert fewest_passing('abc', lambda some: put.append(set(some)), checks) == {'a', 'b'}


def test_checks_that_nothing_passes():
    assert fewest_passing('ab', lambda some: None, [lambda: False]) == {'a', 'b'}
