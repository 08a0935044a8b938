"""What `grm report` makes of runs whose items stopped early, and of full runs as if they had."""

import argparse
from typing import Any


def read_judged(folder: str) -> tuple[list[Any], list[Any]]:
    """Returns the items of a run, and the same with as many first critiques as all have where some stopped early."""
    import sys

    from grm_jax.errors import UserError
    from grm_jax.evaluate.anytime import first_in_common
    from grm_jax.judge.run_folder import read_run
    from grm_jax.judge.run_stop import read_stop

    judged = read_run(folder, report=lambda message: print(message, file=sys.stderr))
    if not judged:
        raise UserError(f"{folder}: no item is judged yet; run `grm judge` first")
    counts = {len(entry.judgement.samples) for entry in judged if entry.judgement.samples}
    if len(counts) < 2 or not read_stop(folder):
        return judged, judged
    note = f"items stopped early, with {min(counts)} to {max(counts)} critiques: tables are about the first {min(counts)} of each"
    print(f"{folder}: {note}", file=sys.stderr)
    return judged, first_in_common(judged)


def read_anytime(args: argparse.Namespace, judged: Any, protocol: Any) -> Any:
    """Replays the run under --stop, or else under the rule it was made with; None without a rule."""
    import dataclasses
    import sys

    from grm_jax.cli.sampling_arguments import stopping
    from grm_jax.errors import UserError
    from grm_jax.evaluate.anytime import replay
    from grm_jax.judge.run_stop import read_stop

    asked, made = stopping(args), read_stop(args.folder)
    if asked:
        most = max(len(entry.judgement.samples) for entry in judged)
        return replay(judged, asked, max(most, made[1] if made else 0), dataclasses.replace(protocol, k_meta=None))
    if not made:
        return None
    stop, k, policy = made
    try:
        return replay(judged, stop, k, dataclasses.replace(protocol, vote=policy, k_meta=None))
    except UserError as unfinished:
        print(f"{args.folder}: {unfinished}", file=sys.stderr)
        return None


def voted(args: argparse.Namespace, judged: Any, anytime: Any, k: int) -> Any:
    """The judgements of a run: at k, or where a rule stopped them."""
    from grm_jax.judge.anytime import read_stop_record, vote_in_time
    from grm_jax.judge.voting import vote

    for judgement in (entry.judgement for entry in judged):
        if anytime:
            stop, most, policy = read_stop_record(anytime.stop, "stop")
            yield vote_in_time(judgement, most, policy, stop)
        else:
            yield vote(judgement, policy=args.vote, k=k if judgement.samples else None, k_meta=args.k_meta)
