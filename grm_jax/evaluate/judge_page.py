"""The judge report as one HTML page that needs no network, and as Markdown.

Texts of prompts, responses and critiques are nobody's word: they reach the page as compressed data and are only ever shown as text.
"""

import base64
import gzip
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from grm_jax.data.records import Item
from grm_jax.evaluate.svg import Series, bar_chart, line_chart, reliability_chart
from grm_jax.evaluate.vote_tables import accuracy_table, cost_notes, cost_table, gain_table, levels, notes
from grm_jax.evaluate.vote_tables import series as vote_series
from grm_jax.judge.run_store import Judged

_OTHER_PROTOCOL = (
    "all but the table of the benchmark's own protocol is of single items: all critiques of an item vote together, every item "
    "counts the same"
)
_GROUPS_DRAWN = 6  # lines that can be told apart


def to_html(report: Mapping[str, Any], judged: Sequence[Judged], items: Mapping[str, Item] | None = None) -> str:
    """Makes the page.

    Args:
        report: of `judge_report`.
        judged: the judgements it is about, voted as the page shows them.
        items: the texts by id, of those that are known.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    folder = importlib.resources.files("grm_jax.evaluate") / "pages"
    page = environment.from_string((folder / "judge.html.j2").read_text(encoding="utf-8"))
    data = [_entry(entry, (items or {}).get(entry.judgement.id)) for entry in judged]
    packed = base64.b64encode(gzip.compress(json.dumps(data, ensure_ascii=False).encode("utf-8"), 6, mtime=0)).decode()
    return page.render(
        report=report, tables=tables(report), remarks=remarks(report), charts=_charts(report), data=packed,
        script=(folder / "judge.js").read_text(encoding="utf-8"), style=(folder / "judge.css").read_text(encoding="utf-8"),
    )  # fmt: skip


def to_markdown(report: Mapping[str, Any]) -> str:
    """The tables of the page as Markdown."""
    run = report["run"]
    lines = [f"# {run['model']}", "", f"{run['items']} items, {run['samples']} critiques each.", ""]
    for title, (head, rows) in tables(report).items():
        table = [head, ["---"] * len(head), *rows]
        lines += [f"## {title}", "", *(f"| {' | '.join(map(_cell, row))} |" for row in table), ""]
    lines += [f"- {note}" for note in remarks(report)]
    return "\n".join(lines).rstrip() + "\n"


def remarks(report: Mapping[str, Any]) -> list[str]:
    """What stands below the tables: how figures came about, what is missing."""
    curves, cost, benchmark = report["curves"], report["cost"], report["benchmark"]
    own = [*benchmark["notes"], _OTHER_PROTOCOL] if benchmark else []
    own += report["anytime"]["notes"] if report["anytime"] else []
    return [*own, *(notes(curves) if curves else []), *(cost_notes(cost) if cost else [])]


def tables(report: Mapping[str, Any]) -> dict[str, tuple[list[str], list[list[str]]]]:
    """What the page and the Markdown say in numbers: title -> (head, rows)."""
    found: dict[str, tuple[list[str], list[list[str]]]] = {}
    if report["benchmark"]:
        found[f"{report['benchmark']['name']} by its own protocol (%)"] = report["benchmark"]["table"]
    ks = sorted({row["k"] for rows in report["accuracy"].values() for row in rows})
    if ks:
        found["Accuracy (%)"] = (
            ["items", "", *(f"k = {k}" for k in ks)],
            [
                [name, str(rows[0]["count"]), *(_estimate({r["k"]: r for r in rows}.get(k), 100) for k in ks)]
                for name, rows in report["accuracy"].items() if rows
            ],
        )  # fmt: skip
    if report["curves"]:
        found["Accuracy by vote (%)"] = accuracy_table(report["curves"])
        found["Gain by vote (points, paired by item)"] = gain_table(report["curves"])
    rates, signal = report["rates"], report["signal"]
    found["Votes and critiques"] = (
        ["", "value"],
        [
            [f"tied at the top at k = {rates['k']}", _percent(rates["tied"])],
            [f"no verdict at k = {rates['k']}", _percent(rates["failed"])],
            *([f"critiques: {name}", _percent(share)] for name, share in rates["outcomes"].items()),
            ["pairs whose winner changes with the order", _estimate(report["flips"], 100, "%")],
            ["a critique scores the labelled response above another", _estimate(signal["right"], 100, "%")],
            ["two critiques of an item name the same winner", _estimate(signal["agree"], 100, "%")],
            ["points more for a response twice as long", _estimate(report["length"], 1, digits=2)],
        ],
    )
    principles = report["principles"]
    if principles["most"]:
        rows = [[each["text"], str(each["count"])] for each in principles["most"]]
        found[f"Principles ({principles['each']:.2f} a critique, {principles['different']} different)"] = (
            ["", "times"],
            rows,
        )
    found["Stated scores, and those of the stated weights and sub-scores"] = (
        ["", "value"],
        _weighted(report["weighted"]),
    )
    if report["meta"]:
        meta = report["meta"]
        found["Meta scores"] = (
            ["", "value"],
            [
                ["right critiques", _percent(meta["right"])],
                ["AUC within items", _estimate(meta["within_item_auc"], 1, digits=3)],
                ["AUC overall", _estimate(meta["auc"], 1, digits=3)],
                ["calibration error", f"{meta['expected_error']:.3f}"], ["Brier score", f"{meta['brier']:.3f}"],
            ],
        )  # fmt: skip
    if report["cost"]:
        tokens = report["cost"]["tokens"]
        each = f"a critique has {tokens['mean']:.0f} tokens, 90% at most {tokens['most_below']:.0f}"
        found[f"Cost of a judgement ({each})"] = cost_table(report["cost"])
    return found


def _weighted(weighted: Mapping[str, Any]) -> list[list[str]]:
    if not weighted["stated"]:
        return [["weights and sub-scores", "not stated"]]
    return [
        ["critiques that state them", _percent(weighted["stated"])],
        ["all stated scores are the recomputed ones, rounded", _estimate(weighted["agree"], 100, "%")],
        ["both name the same winners", _estimate(weighted["same"], 100, "%")],
        ["points between them", _estimate(weighted["gap"], 1, digits=2)],
    ]


def _charts(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    charts: list[dict[str, Any]] = []
    lines = [
        Series(name, [(r["k"], 100 * r["mean"]) for r in rows], [(100 * r["low"], 100 * r["high"]) for r in rows])
        for name, rows in list(report["accuracy"].items())[:_GROUPS_DRAWN] if rows
    ]  # fmt: skip
    if lines:
        drawn = line_chart(lines, x_label="critiques an item, k", y_label="accuracy (%)")
        charts.append(
            {"title": "Accuracy and the number of critiques", "svg": drawn, "names": [one.name for one in lines]}
        )
    curves = report["curves"]
    if curves:
        for title, x_label, by_tokens in (
            ("Accuracy by vote", "critiques an item, k", False),
            ("Accuracy and cost", "generated tokens a judgement", True),
        ):
            drawn_votes = vote_series(curves, by_tokens=by_tokens)
            across = [] if by_tokens else levels(curves)
            drawn = line_chart(drawn_votes, x_label=x_label, y_label="accuracy (%)", levels=across)
            charts.append({"title": title, "svg": drawn, "names": [one.name for one in drawn_votes]})
    counts = report["scores"]
    if counts:
        series = [(name, [100 * value / sum(values) for value in values]) for name, values in counts.items()]
        drawn = bar_chart(series, [str(score) for score in range(1, 11)], x_label="score", y_label="responses (%)")
        charts.append({"title": "Scores", "svg": drawn, "names": [name for name, _ in series]})
    if report["meta"]:
        bins = [(b["confidence"], b["right"], b["count"]) for b in report["meta"]["bins"] if b["count"]]
        charts.append({"title": "Meta scores as probabilities", "svg": reliability_chart(bins), "names": []})
    return charts


def _entry(entry: Judged, item: Item | None) -> dict[str, Any]:
    judgement = entry.judgement
    samples = [
        {
            "i": s.index, "order": s.order, "scores": s.scores, "outcome": s.outcome, "tokens": s.tokens, "meta": s.meta_score,
            "text": s.text, "principles": [p.text for p in s.principles],
        }
        for s in judgement.samples
    ]  # fmt: skip
    tops = [
        frozenset(r for r, score in enumerate(s.scores) if score == max(s.scores))
        for s in judgement.samples if s.scores is not None
    ]  # fmt: skip
    scores = judgement.scores
    tied = scores is not None and entry.n > 1 and sum(score == max(scores) for score in scores) > 1
    flags = {
        "wrong": entry.n > 1 and entry.label is not None and (scores is None or scores[int(entry.label)] < max(scores)),
        "tied": tied,
        "unread": scores is None or any(s.outcome != "ok" for s in judgement.samples),
        "split": len(set(tops)) > 1,
    }
    texts = {} if item is None else {
        "prompt": [{"role": turn.role, "content": turn.content} for turn in item.conversation],
        "responses": list(item.responses),
    }  # fmt: skip
    return {
        "id": judgement.id, "domain": entry.domain, "n": entry.n, "label": entry.label, "scores": scores,
        "flags": [name for name, holds in flags.items() if holds], "samples": samples, **texts,
    }  # fmt: skip


def _estimate(estimate: Mapping[str, Any] | None, factor: float, unit: str = "", digits: int = 1) -> str:
    if not estimate:
        return "-"
    mean, low, high = (f"{factor * estimate[name]:.{digits}f}" for name in ("mean", "low", "high"))
    return f"{mean}{unit} ({low} to {high})"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
