"""From what the evaluation has stored to the report: report.json, report.md, paradigms.png, sizes.png; no model loaded."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grm_jax.checkpoints.files import read_json, replacing, write_json
from grm_jax.data.parts import pairs_of
from grm_jax.data.records import Item, Sample
from grm_jax.errors import UserError
from grm_jax.evaluate.paradigm_plots import save_paradigm_plot, save_size_plot
from grm_jax.evaluate.paradigm_report import Reduce, Row, paradigm_report
from grm_jax.evaluate.paradigm_tables import to_markdown
from grm_jax.judge.reductions import Reduced, decided, majority, mean_rewards
from grm_jax.judge.run_store import load_store
from grm_jax.judge.tally import Ballots, count
from grm_jax.paradigms.evaluation import path_of, shown_items
from grm_jax.paradigms.recipe import EVALUATION, Paradigms

REPORT_JSON, REPORT_TEXT, PLOT, SIZE_PLOT = "report.json", "report.md", "paradigms.png", "sizes.png"
LESS = "grm"
Parts = Mapping[str, list[Sample | None]]
"""By id of what was shown: its first k samples; None where the prompt did not fit into the context, which is no verdict."""
_GRM = "generative", "pointwise", "sum"
_TITLES: Mapping[str, tuple[str, str, str, str]] = {
    "btrm": ("BTRM", "scalar", "pointwise", ""),
    "pairrm": ("PairRM", "scalar", "pairwise", ""),
    "cloud": ("CLoud", "semi-scalar", "pointwise", "mean"),
    "judge": ("LLM-as-a-Judge", "generative", "pairwise", "majority"),
    "token_prob": ("LLM-as-a-Judge, TokenProb", "generative", "pairwise", "weighted majority"),
    "plain": ("GRM without principles", *_GRM),
    "grm": ("GRM", *_GRM),
    "grm_given": ("GRM, principles given", *_GRM),
    "grm_reference": ("GRM, reference answer", *_GRM),
}


def write_report(
    settings: Paradigms,
    items: Sequence[Item],
    folder: Path,
    output: Path,
    *,
    minutes: Mapping[str, float],
    shapes: Mapping[str, Mapping[str, int]],
) -> dict[str, Any]:
    """Reads what the evaluation of every size has stored, and writes the report to `output`; returns it.

    Args:
        settings: of the comparison.
        items: those that were judged.
        folder: of the run.
        output: the report's folder.
        minutes: by stage.
        shapes: by size: model_dim, num_layers, parameters.

    Raises:
        UserError: an item is not judged yet.
    """
    rows = baselines(items)
    for size in settings.sizes:
        for name in settings.rows_of(size):
            if shown_items(name, items):
                rows += stored_rows(name, size, items, folder / size / EVALUATION, max(settings.ks))
    found = paradigm_report(
        rows, [item.id for item in items], [int(item.label or 0) for item in items], settings.ks, less=LESS,
        subset_count=settings.subsets, seed=settings.seed,
    )  # fmt: skip
    found |= {
        "largest": settings.largest, "temperature": settings.temperature, "minutes": dict(minutes),
        "sizes": {name: dict(shape) for name, shape in shapes.items()},
    }  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    for file, save in ((PLOT, save_paradigm_plot), (SIZE_PLOT, save_size_plot)):
        with replacing(output / file) as temporary:
            save(temporary, found)
    with replacing(output / REPORT_TEXT) as temporary:
        temporary.write_text(to_markdown(found, [PLOT, SIZE_PLOT]), encoding="utf-8")
    write_json(output, REPORT_JSON, found)
    return found


def baselines(items: Sequence[Item]) -> list[Row]:
    """The rows that need no model: any response (all tied, so worth 1/n), and the one of the fewest characters."""
    anything = [_fixed(np.zeros(len(item.responses))) for item in items]
    shortest = [_fixed(-np.array([len(response) for response in item.responses], float)) for item in items]
    return [
        Row("random", "random", "baseline", "", "", "", 1, anything),
        Row("shortest", "shortest response", "baseline", "", "", "", 1, shortest),
    ]


def stored_rows(name: str, size: str, items: Sequence[Item], home: Path, k: int) -> list[Row]:
    """The rows of what one paradigm has stored; LLM-as-a-Judge has two.

    Raises:
        UserError: an item is not judged yet, or has fewer than k samples.
    """
    path = path_of(home, name)
    if path.suffix == ".json":
        stored = read_json(home, path.name) if path.exists() else {}
        missing = next((item.id for item in items if item.id not in stored), None)
        if missing is not None:
            raise _not_judged(path, missing)
        of = _pairrm if name == "pairrm" else _btrm
        return [_row(name, size, 1, [of(stored[item.id], len(item.responses)) for item in items])]
    parts = _samples(path, shown_items(name, items), k)
    drawn = [sample for samples in parts.values() for sample in samples]
    about = {
        "tokens": sum(sample.tokens for sample in drawn if sample) / k / len(items),
        "unread": float(np.mean([sample is None or sample.outcome != "ok" for sample in drawn])),
    }
    if name == "judge":
        votes = [_verdicts(item, parts) for item in items]
        ns = [len(item.responses) for item in items]
        plain = [functools.partial(majority, v, n=n) for (v, _), n in zip(votes, ns, strict=True)]
        sure = [functools.partial(majority, v, n=n, weights=w) for (v, w), n in zip(votes, ns, strict=True)]
        return [_row("judge", size, k, plain, **about), _row("token_prob", size, k, sure, **about)]
    of_item = _cloud if name == "cloud" else _grm
    return [_row(name, size, k, [of_item(item, parts) for item in items], **about)]


def _row(name: str, size: str, samples: int, ballots: Sequence[Reduce], **about: float) -> Row:
    title, kind, mode, vote = _TITLES[name]
    return Row(name, title, kind, mode, vote, size, samples, ballots, **about)


def _fixed(totals: np.ndarray) -> Reduce:
    return lambda _: Reduced(totals[None], np.zeros(1, bool))


def _btrm(rewards: Sequence[float], n: int) -> Reduce:
    assert len(rewards) == n
    return _fixed(np.array(rewards))


def _pairrm(rewards: Sequence[Sequence[float]], n: int) -> Reduce:
    forward, backward = np.array(rewards).T
    return lambda _: decided(forward, backward, n)


def _cloud(item: Item, parts: Parts) -> Reduce:
    by_response = [parts[f"{item.id}#{i}"] for i in range(len(item.responses))]
    rewards = [[s.meta_score if s and s.meta_score is not None else np.nan for s in samples] for samples in by_response]
    return functools.partial(mean_rewards, np.array(rewards).T)


def _verdicts(item: Item, parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """Verdicts and weights float64 [K, Q] of an item, as `reductions.majority` takes them."""
    by_pair = [parts[f"{item.id}#{i}-{j}"] for i, j in pairs_of(len(item.responses))]
    verdicts = [
        [float(s.scores[0] > s.scores[1]) if s and s.scores else np.nan for s in samples] for samples in by_pair
    ]
    weights = [[np.exp(s.verdict_logprob or 0.0) if s else 0.0 for s in samples] for samples in by_pair]
    return np.array(verdicts).T, np.array(weights).T


def _grm(item: Item, parts: Parts) -> Reduce:
    scores = [sample.scores if sample else None for sample in parts[item.id]]
    read = np.array([each is not None for each in scores])
    ballots = Ballots.of([each or (0,) * len(item.responses) for each in scores], [0.0] * len(scores))

    def reduce(members: np.ndarray) -> Reduced:
        totals, used = count(ballots, members & read, "sum")
        return Reduced(totals.astype(np.float64), used == 0)

    return reduce


def _samples(path: Path, shown: Sequence[Item], k: int) -> Parts:
    store = load_store(path)
    found: dict[str, list[Sample | None]] = {}
    for item in shown:
        samples = [sample for _, sample in sorted(store.samples.get(item.id, {}).items())][:k]
        if len(samples) < k and item.id not in store.too_long:
            raise _not_judged(path, item.id)
        found[item.id] = [*samples] if samples else [None] * k
    return found


def _not_judged(path: Path, item_id: str) -> UserError:
    return UserError(f"{path}: item {item_id!r} is not judged yet; run the stage evaluation")
