"""The scaling report over several judges as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from grm_jax.evaluate.curve_report import GREEDY, META, VOTING

_NAMES = {VOTING: "Voting", META: "MetaRM", GREEDY: "greedy"}
_KINDS = {
    "stage": "Each stage less the one before",
    "voting": "Voting less one sample",
    "meta": "Guided voting less voting",
}


def to_markdown(report: Mapping[str, Any], plots: Sequence[str] = ()) -> str:
    """Writes a report of `curve_report`, with the stages' `minutes` if it has them; percentages with 95% intervals.

    `plots` are file names to show.
    """
    lines = ["# Inference-time scaling", "", *_protocol(report), ""]
    lines += [line for name in plots for line in (f"![{name.removesuffix('.png')}]({name})", "")]
    for group, count in report["items"].items():
        lines += [f"## {_title(group)}: {count} items", ""]
        for temperature in _temperatures(report):
            lines += [f"Accuracy (%) at temperature {temperature:g}:", "", *_levels(report, group, temperature), ""]
        lines += ["Paired differences (points):", "", *_differences(report, group), ""]
    lines += ["## Ties, unread critiques", "", *_rates(report), ""]
    if any(run["meta"] for run in report["runs"]):
        lines += ["## Meta scores", "", *_meta(report), ""]
    if report.get("minutes"):
        lines += ["## Time", "", *_table(["stage", "minutes"], [[n, f"{m:.1f}"] for n, m in report["minutes"].items()])]
    return "\n".join(lines).rstrip() + "\n"


def summary(report: Mapping[str, Any]) -> str:
    """Returns the accuracy over all items as plain text for a terminal: a row for each judge, temperature and vote."""
    ks = _ks(report)
    rows = [["judge", "temperature", "vote", *(f"@{k}" for k in ks)]]
    for (judge, temperature, vote), row in _by_vote(report, "all").items():
        cells = [f"{100 * row[k]['mean']:.1f}" if k in row else "" for k in ks]
        rows.append([judge, f"{temperature:g}", _NAMES[vote], *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in (0, 2) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _protocol(report: Mapping[str, Any]) -> list[str]:
    protocol = report["protocol"]
    k_meta = protocol["k_meta"]
    kept = f"{100 * k_meta:g}%" if k_meta < 1 else f"{k_meta:g}"
    return [
        f"Voting@k sums the scores of k critiques; MetaRM@k sums those of the {kept} that the meta reward model ranks highest.",
        f"k = 1 is the mean over all samples, a larger k the mean over {protocol['subsets']} random subsets of them. A tie at "
        "the top is worth 1/t, no verdict nothing. Intervals are 95% bootstrap intervals over items.",
    ]


def _levels(report: Mapping[str, Any], group: str, temperature: float) -> list[str]:
    ks = _ks(report)
    rows = []
    by_vote = _by_vote(report, group)
    for (judge, at, vote), row in by_vote.items():
        if at == temperature:
            greedy = by_vote.get((judge, 0.0, GREEDY), {}).get(1) if vote == VOTING else None
            cells = [_interval(row[k]) if k in row else "" for k in ks]
            rows.append([judge, _NAMES[vote], _interval(greedy) if greedy else "", *cells])
    return _table(["judge", "vote", "greedy", *(f"k = {k}" for k in ks)], rows)


def _differences(report: Mapping[str, Any], group: str) -> list[str]:
    rows = []
    for row in report["differences"]:
        if row["group"] == group:
            what, less = row["what"], row["less"]
            temperature = f"{what['temperature']:g}"
            rows.append([_KINDS[row["kind"]], temperature, _point(what), _point(less), _interval(row, sign=True)])
    return _table(["", "temperature", "of", "less", "difference"], rows)


def _rates(report: Mapping[str, Any]) -> list[str]:
    rows = []
    for run in report["runs"]:
        mine = [
            row for row in report["points"]
            if row["group"] == "all" and (row["judge"], row["temperature"]) == (run["judge"], run["temperature"])
            and row["vote"] in (VOTING, GREEDY)
        ]  # fmt: skip
        first, last = mine[0], mine[-1]
        rates = [f"{100 * row[name]:.1f}" for row in (first, last) for name in ("tied", "failed")]
        rows.append([run["judge"], f"{run['temperature']:g}", f"{100 * run['unread']:.1f}", *rates, str(last["k"])])
    head = [
        "judge",
        "temperature",
        "unread critiques (%)",
        "tied at k = 1 (%)",
        "no verdict (%)",
        "tied at largest k (%)",
    ]
    return _table([*head, "no verdict (%)", "largest k"], rows)


def _meta(report: Mapping[str, Any]) -> list[str]:
    rows = []
    for run in report["runs"]:
        for group, figures in run["meta"].items():
            auc, within = (_plain(figures[name]) for name in ("auc", "within_item_auc"))
            errors = [f"{figures[name]:.3f}" for name in ("expected_error", "brier")]
            right = f"{100 * figures['right']:.1f}"
            rows.append([run["judge"], f"{run['temperature']:g}", _title(group), within, auc, *errors, right])
    head = ["judge", "temperature", "items", "AUC within items", "AUC overall", "calibration error", "Brier"]
    return _table([*head, "right critiques (%)"], rows)


def _by_vote(report: Mapping[str, Any], group: str) -> dict[tuple[str, float, str], dict[int, Any]]:
    found: dict[tuple[str, float, str], dict[int, Any]] = {}
    for row in report["points"]:
        if row["group"] == group:
            found.setdefault((row["judge"], row["temperature"], row["vote"]), {})[row["k"]] = row
    return found


def _ks(report: Mapping[str, Any]) -> list[int]:
    return sorted({row["k"] for row in report["points"]})


def _temperatures(report: Mapping[str, Any]) -> list[float]:
    return list(dict.fromkeys(run["temperature"] for run in report["runs"] if run["temperature"]))


def _point(point: Mapping[str, Any]) -> str:
    vote = _NAMES[point["vote"]]
    return f"{point['judge']} {vote}" if point["vote"] == GREEDY else f"{point['judge']} {vote}@{point['k']}"


def _interval(row: Mapping[str, Any], *, sign: bool = False) -> str:
    form = "+.1f" if sign else ".1f"
    return " ".join([f"{100 * row['mean']:{form}}", f"({100 * row['low']:{form}} to {100 * row['high']:{form}})"])


def _plain(estimate: Mapping[str, Any] | None) -> str:
    return f"{estimate['mean']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})" if estimate else "-"


def _title(group: str) -> str:
    return group.replace("_", " ").capitalize()


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
