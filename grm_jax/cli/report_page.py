"""What `grm report` writes to files: the judge report as a page, as Markdown, as figures."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any


def read_texts(args: argparse.Namespace) -> dict[str, Any]:
    """The items' texts by id; they must be those that were judged."""
    from grm_jax.benchmarks.loading import load
    from grm_jax.benchmarks.registry import BENCHMARKS
    from grm_jax.data.jsonl import read_jsonl_items
    from grm_jax.errors import UserError
    from grm_jax.judge.run_identity import read_identity
    from grm_jax.judge.run_store import item_facts, load_store

    if not args.items:
        return {}
    if not (args.html or args.markdown or args.figures or args.weaknesses):
        raise UserError("--items: only --html, --markdown, --figures and --weaknesses need it; leave it out")
    facts = load_store(Path(args.folder)).items
    benchmark = read_identity(args.folder).get("benchmark")
    if benchmark in BENCHMARKS:
        cases = load(BENCHMARKS[benchmark], args.items, partial=True).cases
        given = [item for case in cases for item in case.items]
    else:
        given = read_jsonl_items(args.items)
    texts = {item.id: item for item in given if item.id in facts}
    other = next((name for name, item in texts.items() if item_facts(item).digest != facts[name].digest), None)
    if other:
        raise UserError(f"{args.items}: item {other!r} had other texts when it was judged; give the items as they were")
    return texts


def read_benchmark(folder: str) -> dict[str, Any] | None:
    """What `grm eval` found by the benchmark's own protocol: its table, notes and record; None for a run of another command."""
    from grm_jax.benchmarks.record import read_record
    from grm_jax.benchmarks.table import figure_table, notes

    found = read_record(folder)
    if found is None:
        return None
    evaluation, record = found
    return {
        "name": evaluation.benchmark,
        "table": figure_table(evaluation),
        "notes": notes(evaluation),
        "record": record,
    }


def read_curves(args: argparse.Namespace, judged: Any, ks: list[int], protocol: Any) -> tuple[Any, Any]:
    """The curves of all votes, with the greedy run if one is given, and the times of the run."""
    import sys

    from grm_jax.errors import UserError
    from grm_jax.evaluate.vote_curves import check_greedy, vote_curves
    from grm_jax.judge.run_folder import read_run
    from grm_jax.judge.run_identity import read_identity
    from grm_jax.judge.run_times import read_times

    identity, greedy = read_identity(args.folder), None
    if args.greedy:
        other = read_run(args.greedy, report=lambda message: print(message, file=sys.stderr))
        greedy = check_greedy(judged, other, identity, read_identity(args.greedy), args.greedy)
    policy = identity.get("policy")
    temperature = policy.get("temperature") if isinstance(policy, dict) else None
    times = read_times(Path(args.folder))
    curves = vote_curves(judged, ks, protocol, greedy=greedy, temperature=temperature, times=times)
    if args.greedy and curves is None:
        raise UserError("--greedy: no labelled item has two responses or more; leave it out")
    return curves, times


def write_report(
    args: argparse.Namespace, judged: Any, ks: list[int], protocol: Any, texts: dict[str, Any], **known: Any
) -> None:
    """Writes the files that were asked for; `known` are further arguments of `judge_report`."""
    import json

    from grm_jax.checkpoints.files import replacing
    from grm_jax.evaluate.judge_page import to_html, to_markdown
    from grm_jax.evaluate.judge_report import finite, judge_report
    from grm_jax.judge.run_identity import read_identity
    from grm_jax.judge.voting import vote
    from grm_jax.spct.acceptance import accepted

    identity = read_identity(Path(args.folder))
    run = {name: identity[name] for name in ("model", "template", "seed")}
    report = finite(judge_report(judged, ks, protocol, accepted, run=run, items=texts, **known))
    contents = {"figures": lambda: json.dumps(report, indent=1) + "\n", "markdown": lambda: to_markdown(report)}
    if args.html:
        k = max(ks)
        voted = [
            replace(entry, judgement=vote(
                entry.judgement, policy=args.vote, k=k if entry.judgement.samples else None, k_meta=args.k_meta
            ))
            for entry in judged
        ]  # fmt: skip
        contents["html"] = lambda: to_html(report, voted, texts)
    for option, make in contents.items():
        if path := getattr(args, option):
            with replacing(Path(path)) as temporary:
                temporary.write_text(make(), encoding="utf-8")
