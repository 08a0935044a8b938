"""Judged items made from plain scores, for the tests of this room."""

from grm_jax.data.records import Judgement, Sample
from grm_jax.judge.run_store import Judged


def judged(item_id, rows, label, n=2, meta=None, outcomes=None):
    """An item with one sample a row; a row of None is a sample that failed to parse."""
    samples = tuple(
        Sample(
            index=i,
            order=tuple(range(n)),
            text="",
            scores=None if row is None else tuple(row),
            outcome="no_block" if row is None else "ok",
            tokens=1,
            logprob=None,
            meta_score=None if meta is None else meta[i],
            seed=0,
        )
        for i, row in enumerate(rows)
    )
    judgement = Judgement(
        id=item_id,
        scores=None,
        best=None,
        ranking=(),
        k=0,
        vote="sum",
        samples=samples,
        outcomes=outcomes or {},
        model="m",
        template="t",
        seed=0,
    )
    return Judged(judgement, n, label, None)
