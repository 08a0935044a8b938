"""A planted weakness is found: a side that loses wherever one principle is stated, and nowhere else."""

import pytest

from grm_jax.data.records import Principle, Sample
from grm_jax.evaluate.weaknesses import standings
from grm_jax.judge.run_store import Judged
from grm_jax.judge.voting import unvoted


def sample(index, scores, *principles):
    stated = tuple(Principle(text, None) for text in principles)
    return Sample(
        index=index, order=(0, 1), text="", principles=stated, scores=scores, outcome="ok" if scores else "no_block",
        tokens=1, logprob=None, seed=0,
    )  # fmt: skip


def entry(name, *samples):
    return Judged(unvoted(name, samples, model="m", template="t", seed=0), 2, None, None)


def test_a_planted_weakness_comes_first_with_its_difference():
    """The side is response 0 of even items and 1 of odd ones."""
    judged, sides = [], {}
    for i in range(20):
        side = i % 2
        won, lost = ((9, 1), (1, 9)) if side == 0 else ((1, 9), (9, 1))
        sides[f"i{i}"] = side
        critiques = [
            sample(0, lost, "Is it correct?"),
            sample(1, lost, "correct, it is", "clear"),
            sample(2, won, "clear"),
            sample(3, won, "clear", f"only here {i}"),
            sample(4, None, "Is it correct?"),
        ]
        judged.append(entry(f"i{i}", *critiques))
    whole, found = standings([*judged, entry("other", sample(0, (9, 1), "clear"))], sides)
    assert whole.mean == 0.5 and whole.count == 20
    assert [(each.principle, each.critiques) for each in found] == [("Is it correct?", 40), ("clear", 60)]
    assert found[0].won.mean == 0.0 and found[0].difference.mean == -1.0
    assert found[1].won.mean == pytest.approx(2 / 3) and found[1].difference.mean == pytest.approx(2 / 3)
    assert standings(judged, sides, least=21)[1] == []
    assert standings(judged, {})[0] is None


def test_a_shared_top_is_split_and_a_principle_of_all_has_no_difference():
    judged = [entry(f"i{i}", sample(0, (5, 5), "same")) for i in range(10)]
    whole, (only,) = standings(judged, {f"i{i}": 0 for i in range(10)})
    assert whole.mean == only.won.mean == 0.5 and only.difference is None
