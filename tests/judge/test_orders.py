import itertools
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grm_jax.judge.orders import order, unshuffle

laws = settings(max_examples=80, deadline=None, derandomize=True)
seeds = st.integers(0, 2**63)
ids = st.text(max_size=8)
counts = st.integers(1, 8)


@laws
@given(seeds, ids, counts, st.integers(0, 500))
def test_an_order_is_a_permutation_that_depends_on_its_arguments_alone(seed, item_id, n, index):
    drawn = order(seed, item_id, n, index)
    assert sorted(drawn) == list(range(n))
    assert drawn == order(seed, item_id, n, index)
    assert all(type(response) is int for response in drawn)


@laws
@given(seeds, ids, counts, st.integers(0, 30))
def test_each_block_of_n_shows_every_response_at_every_place_once(seed, item_id, n, block):
    shown = [order(seed, item_id, n, block * n + i) for i in range(n)]
    for place in range(n):
        assert sorted(row[place] for row in shown) == list(range(n))


@laws
@given(seeds, ids, st.integers(1, 4), st.integers(0, 5))
def test_up_to_four_responses_each_cycle_shows_every_permutation_once(seed, item_id, n, cycle):
    size = math.factorial(n)
    shown = [order(seed, item_id, n, cycle * size + i) for i in range(size)]
    assert sorted(shown) == sorted(itertools.permutations(range(n)))


@laws
@given(seeds, ids, st.integers(0, 100))
def test_two_responses_alternate(seed, item_id, index):
    assert order(seed, item_id, 2, index) == order(seed, item_id, 2, index + 1)[::-1]


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_the_first_order_is_fair_over_items(n):
    """Every response comes first about equally often: 1,200 items, a band of about four standard deviations."""
    first = Counter(order(0, f"item {i}", n, 0)[0] for i in range(1200))
    spread = 4 * math.sqrt(1200 * (1 / n) * (1 - 1 / n))
    assert all(abs(first[response] - 1200 / n) < spread for response in range(n))


def test_seed_and_item_change_the_orders():
    def run(seed, item_id):
        return [order(seed, item_id, 5, i) for i in range(10)]

    assert run(0, "a") != run(1, "a")
    assert run(0, "a") != run(0, "b")


@laws
@given(st.permutations(range(6)), st.lists(st.integers(1, 10), min_size=6, max_size=6))
def test_unshuffle_undoes_showing(shown_order, scores):
    assert unshuffle([scores[response] for response in shown_order], shown_order) == tuple(scores)


def test_unshuffle_refuses_a_wrong_count():
    with pytest.raises(ValueError, match="argument"):
        unshuffle([1, 2, 3], (1, 0))


def test_an_impossible_request_is_refused():
    with pytest.raises(ValueError, match="n = 0"):
        order(0, "a", 0, 0)
    with pytest.raises(ValueError, match="sample -1"):
        order(0, "a", 2, -1)
