"""What `grm report` prints of two sides: of two judges, or of two writers of responses."""

import argparse
from pathlib import Path
from typing import Any


def compare(args: argparse.Namespace, judged: Any, ks: list[int], protocol: Any) -> int:
    """Prints what the other run's judge is right more often by."""
    import dataclasses
    import json

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from grm_jax.cli.report_anytime import read_judged
    from grm_jax.errors import UserError
    from grm_jax.evaluate.comparison import compare as compared

    alone = (
        "greedy",
        "plot",
        "calibration_plot",
        "html",
        "markdown",
        "figures",
        "judgements",
        "items",
        "weaknesses",
        "stop",
    )
    given = next((name for name in alone if getattr(args, name)), None)
    if given:
        raise UserError(f"--{given.replace('_', '-')} is of one run; leave it out, or the second run")
    _, other = read_judged(args.other)
    groups = {"all": judged}
    if args.by:
        groups |= {name: [e for e in judged if (e.domain or "-") == name] for name in {e.domain or "-" for e in judged}}
    found = {name: compared(members, other, ks, protocol) for name, members in groups.items()}
    if args.json:
        print(json.dumps({name: [dataclasses.asdict(row) for row in rows] for name, rows in found.items()}, indent=1))
        return 0
    console, first, second = Console(), Path(args.folder).name, Path(args.other).name
    for name, rows in sorted(found.items(), key=lambda pair: (pair[0] != "all", pair[0])):
        title = f"{name}: {rows[0].difference.count} items judged in both runs" if rows else name
        head = ("k", f"{first} (%)", f"{second} (%)", f"{second} less {first}")
        table = Table(title=Text(title), title_justify="left")
        for column in head:
            table.add_column(Text(column))
        for row in rows:
            points = [f"{100 * e.mean:.1f}" for e in (row.first, row.second)]
            low, high = (f"{100 * end:+.1f}" for end in (row.difference.low, row.difference.high))
            table.add_row(str(row.k), *points, f"{100 * row.difference.mean:+.1f} ({low} to {high})")
        console.print(table)
    return 0


def weaknesses(args: argparse.Namespace, judged: Any, texts: dict[str, Any]) -> int:
    """Prints on what principles one side loses."""
    import dataclasses
    import json

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from grm_jax.errors import UserError
    from grm_jax.evaluate.weaknesses import standings

    sources = {name: item.meta.get("sources") for name, item in texts.items()}
    sides = {
        name: listed.index(args.weaknesses) for name, listed in sources.items()
        if isinstance(listed, list) and args.weaknesses in listed
    }  # fmt: skip
    if not sides:
        remedy = "give --items whose meta.sources names who wrote each response"
        raise UserError(f"--weaknesses {args.weaknesses}: no item names it among its sources; {remedy}")
    whole, found = standings(judged, sides)
    if args.json:
        about = {"all": whole and dataclasses.asdict(whole), "principles": [dataclasses.asdict(each) for each in found]}
        print(json.dumps(about, indent=1))
        return 0

    def percent(estimate: Any, form: str = ".1f") -> str:
        if estimate is None:
            return "-"
        return " ".join(
            [f"{100 * estimate.mean:{form}}", f"({100 * estimate.low:{form}} to {100 * estimate.high:{form}})"]
        )

    table = Table("principle", "items", "critiques", "wins (%)", "more than without it (points)", title_justify="left")
    table.title = Text(f"{args.weaknesses} wins {percent(whole)}% of {whole.count if whole else 0} items")
    for each in found:
        cells = [str(each.won.count), str(each.critiques), percent(each.won), percent(each.difference, "+.1f")]
        table.add_row(Text(each.principle), *cells)
    Console().print(table)
    if not found:
        print("no principle is stated in ten items or more")
    return 0
