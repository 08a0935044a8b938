"""The curves of `vote_curves` as tables and charts: for the terminal, the page and Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from grm_jax.evaluate.svg import Series

Rows = tuple[list[str], list[list[str]]]
"""The head and the rows of a table."""
_DRAWN = (("sum", None), ("majority", None), ("rank", None), ("meta_topk", 0.5), ("meta_soft", None))
"""Votes that are drawn: as many as can be told apart; mean has the accuracy of sum."""
_HOW_TO_GREEDY = (
    "run the command that made this run with `--temperature 0 --k 1` and another folder, and give that as --greedy"
)
_ABSENT = "not given"
GREEDY = "greedy"
ONE = "one sampled critique"


def name_of(curve: Mapping[str, Any]) -> str:
    """Names a vote, with the share or the number of critiques that meta_topk keeps."""
    return curve["vote"] if curve["k_meta"] is None else f"{curve['vote']} {curve['k_meta']:g}"


def accuracy_table(curves: Mapping[str, Any]) -> Rows:
    """Accuracy with its interval: a row a vote, a column a k; the baselines first."""
    ks = curves["protocol"]["ks"]
    rows = [[name, _cell(estimate) or _ABSENT, *[""] * (len(ks) - 1)] for name, estimate in _baselines(curves)]
    for curve in curves["curves"]:
        by_k = {point["k"]: point for point in curve["points"]}
        rows.append([name_of(curve), *(_cell(by_k.get(k)) for k in ks)])
    return ["vote", *(f"k = {k}" for k in ks)], rows


def gain_table(curves: Mapping[str, Any]) -> Rows:
    """What each vote gains over the baselines at the largest k, in points, paired by item."""
    rows = []
    for curve in curves["curves"]:
        last = curve["points"][-1]
        rows.append(
            [name_of(curve), str(last["k"]), _cell(last["over_one"], "+"), _cell(last["over_greedy"], "+") or "-"]
        )
    return ["vote", "k", f"over {ONE}", "over greedy"], rows


def cost_table(cost: Mapping[str, Any]) -> Rows:
    """Tokens and seconds of a judgement: a row a k; derived seconds are marked."""
    rows = [
        [
            f"k = {row['k']}", f"{row['tokens']:.0f}", _seconds(row["seconds"], row["measured"]),
            _seconds(row["meta_seconds"], row["meta_measured"]),
        ]
        for row in cost["by_k"]
    ]  # fmt: skip
    return ["", "tokens", "seconds", "seconds of meta scores"], rows


def notes(curves: Mapping[str, Any]) -> list[str]:
    """What stands below the accuracy table: how it came about, and what is missing and how to get it."""
    protocol = curves["protocol"]
    taken = f"mean of {protocol['subsets']} random subsets of k" if protocol["subsets"] else "the first k critiques"
    found = [
        f"{curves['items']} labelled items; {taken} of {curves['samples']} critiques (k = 1: all of them); 95% intervals over "
        f"items; ties {protocol['ties']}, failures {protocol['failures']}",
    ]
    if protocol["temperature"] == 0:
        found.append("these critiques were drawn at temperature 0: they are greedy and differ by the order shown alone")
    elif not curves["greedy"]:
        found.append(f"greedy: no run at temperature 0 is given; {_HOW_TO_GREEDY}")
    if not curves["guided"]:
        found.append("meta_topk, meta_soft: not all critiques have meta scores; make them with `grm meta-score`")
    return found


def cost_notes(cost: Mapping[str, Any]) -> list[str]:
    """How the seconds came about."""
    found = ["tokens: generated, summed over the k critiques; those of prompts are not stored"]
    if not cost["timed"]:
        return [*found, "seconds: this run was not timed"]
    timed = "" if cost["timed"] == 1 else f" of the {100 * cost['timed']:.0f}% of critiques that were timed"
    return [
        *found,
        f"seconds: wall-clock of the whole run divided by its items{timed}, compilation included; those with ~ are derived: in "
        "proportion to tokens, so a run at that k takes more, as its prompts cost the same and fewer rows are decoded together",
    ]


def to_text(curves: Mapping[str, Any]) -> str:
    """Accuracy, cost and notes as aligned plain text; the interval stands below its mean."""
    head, rows = accuracy_table(curves)
    lines = ["accuracy (%) by vote"]
    cells = [head]
    for row in rows:
        cells.append([row[0], *(cell.partition(" (")[0] for cell in row[1:])])
        cells.append(["", *(_bare(cell) for cell in row[1:])])
    lines += _aligned(cells) + notes(curves)
    if curves["cost"]:
        head, rows = cost_table(curves["cost"])
        lines += ["", "cost of a judgement", *_aligned([head, *rows]), *cost_notes(curves["cost"])]
    return "\n".join(lines) + "\n"


def series(curves: Mapping[str, Any], *, by_tokens: bool = False) -> list[Series]:
    """Lines for a chart: accuracy (%) against k or tokens of a judgement; against tokens, greedy is a line of one point."""
    tokens = {row["k"]: _whole(row["tokens"]) for row in curves["cost"]["by_k"]} if by_tokens else {}
    lines = []
    for curve in curves["curves"]:
        if (curve["vote"], curve["k_meta"]) in _DRAWN:
            points = [(tokens[p["k"]] if by_tokens else p["k"], 100 * p["mean"]) for p in curve["points"]]
            bands = [(100 * p["low"], 100 * p["high"]) for p in curve["points"]] if curve["vote"] == "sum" else []
            lines.append(Series(name_of(curve), points, bands))
    greedy = curves["greedy"]
    if by_tokens and greedy and greedy["tokens"]:
        lines.append(Series(GREEDY, [(_whole(greedy["tokens"]), 100 * greedy["mean"])]))
    return lines


def levels(curves: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The baselines as levels (name, %) of a chart."""
    return [(name, 100 * estimate["mean"]) for name, estimate in _baselines(curves) if estimate]


def _whole(tokens: float) -> float:
    return max(1, round(tokens))


def _baselines(curves: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any] | None]]:
    return [(GREEDY, curves["greedy"]), (ONE, curves["one"])]


def _cell(estimate: Mapping[str, Any] | None, sign: str = "") -> str:
    if not estimate:
        return ""
    mean, low, high = (f"{100 * estimate[name]:{sign}.1f}" for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def _bare(cell: str) -> str:
    return cell.partition("(")[2].rstrip(")").replace(" to ", "-")


def _seconds(value: float | None, measured: bool) -> str:
    return "-" if value is None else f"{'' if measured else '~'}{value:.3g}"


def aligned(table: Rows) -> list[str]:
    """Lines of plain text: the first column to the left, the others to the right."""
    return _aligned([table[0], *table[1]])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        padded = [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(padded).rstrip())
    return lines
