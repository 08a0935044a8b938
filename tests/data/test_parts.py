"""Parts of items: what stands in each, and what is known of it."""

import pytest

from grm_jax.data.parts import pairs, pairs_of, singles
from grm_jax.data.records import Item, Turn


def item(n, label):
    return Item(
        "i",
        (Turn("user", "which?"),),
        tuple("abcd"[:n]),
        label,
        strength=2 if n > 1 else None,
        reference="r",
        principles=("p",),
    )


def test_each_response_by_itself_has_no_label():
    found = singles(item(3, 1))
    assert [(part.id, part.responses) for part in found] == [("i#0", ("a",)), ("i#1", ("b",)), ("i#2", ("c",))]
    assert all(
        (part.label, part.strength, part.reference, part.principles) == (None, None, "r", ("p",)) for part in found
    )
    assert singles(item(1, 7))[0].label is None


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_every_pair_stands_once_and_knows_the_best_if_it_holds_it(n):
    for best in range(n):
        found = pairs(item(n, best))
        assert len(found) == len(pairs_of(n)) == n * (n - 1) // 2
        for part, (i, j) in zip(found, pairs_of(n), strict=True):
            assert part.id == f"i#{i}-{j}" and part.responses == ("abcd"[i], "abcd"[j])
            assert part.label == {i: 0, j: 1}.get(best)
            assert part.strength == (2 if best in (i, j) else None)
