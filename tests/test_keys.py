"""Streams are named, and names do not run together."""

import numpy as np

from grm_jax.keys import digest, generator, stream_key


def test_names_are_told_apart_by_type_and_place():
    names = [("ab", "c"), ("a", "bc"), ("abc",), (1,), ("1",), (1, 2), (12,), ("", "a"), ("a", ""), ("a",), ()]
    assert len({digest(*each) for each in names}) == len(names)


def test_a_stream_is_the_same_on_every_machine():
    """Golden figures: a change of them changes every critique of every stored run."""
    assert stream_key("critique", 0, "item", 3).tolist() == [2890984107, 721151106]
    assert generator("order", 0, "item").integers(0, 1000, 4).tolist() == [332, 787, 262, 350]


def test_streams_start_anew_at_each_call():
    assert np.array_equal(generator("a", 1).random(5), generator("a", 1).random(5))
    assert not np.array_equal(generator("a", 1).random(5), generator("a", 2).random(5))
