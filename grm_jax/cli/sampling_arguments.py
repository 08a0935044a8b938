"""The arguments every command that samples from a judge takes, and the judge they ask for."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grm_jax.judge.anytime import Stopping
    from grm_jax.judge.judge import Judge


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the group of arguments that `load_judge` reads."""
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("--temperature", type=float, help="0 is greedy (default: 0.5)")
    sampling.add_argument("--top-k", type=int, help="keep the k likeliest tokens (default: all)")
    sampling.add_argument("--top-p", type=float, help="keep the likeliest tokens up to this probability (default: 1)")
    sampling.add_argument("--min-p", type=float, help="keep tokens this likely relative to the likeliest (default: 0)")
    sampling.add_argument(
        "--max-new", type=int, metavar="N", help="tokens a critique (default: 1024, or half the context)"
    )
    sampling.add_argument("--rows", type=int, default=64, help="critiques decoded together (default: 64)")
    sampling.add_argument(
        "--template", metavar="NAME|FILE", help="prompt template (default: the model's own, else grm)"
    )
    add_numeric_arguments(sampling)


def add_numeric_arguments(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """Adds what the judge computes in, and what its weights, and keys and values, are kept in."""
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: float32 on CPU, else bfloat16")
    parser.add_argument(
        "--weights",
        choices=["int8"],
        help="keep projections in 8 bits, a scale an output channel (default: as --dtype)",
    )
    parser.add_argument(
        "--cache",
        choices=["int8"],
        help="keep keys and values in 8 bits, a scale a token and head (default: as --dtype)",
    )


def add_vote_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what says how critiques are voted on, and which meta model scores them."""
    parser.add_argument(
        "--vote", default="sum", metavar="POLICY", help="sum, mean, majority, rank, meta_topk, meta_soft (default: sum)"
    )
    parser.add_argument(
        "--meta-model", metavar="tiny_meta|DIR", help="scores every critique, for meta_topk and meta_soft"
    )
    parser.add_argument(
        "--k-meta", type=float, metavar="N", help="critiques that meta_topk keeps, below 1 a share (default: 0.5)"
    )


def add_stop_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds the group of arguments that `stopping` reads; `what` says what the command does with the rule."""
    stop = parser.add_argument_group("anytime voting")
    stop.add_argument("--stop", choices=["exact", "confident"], help=what)
    stop.add_argument("--confidence", type=float, metavar="P", help="that is enough for confident (default: 0.95)")
    stop.add_argument("--round", type=int, metavar="N", help="critiques an item between decisions (default: 4)")


def stopping(args: argparse.Namespace) -> "Stopping | None":
    """The rule that was asked for.

    Raises:
        UserError: it means nothing, or the vote cannot stop early.
    """
    from grm_jax.errors import UserError
    from grm_jax.judge.anytime import Stopping, check_stopping

    given = {name: value for name in ("confidence", "round") if (value := getattr(args, name)) is not None}
    if not args.stop:
        if given:
            raise UserError(f"--{next(iter(given))}: there is no --stop; add one or leave it out")
        return None
    check_counts(args, "round")
    stop = Stopping(args.stop, **given)
    check_stopping(stop, args.vote)
    return stop


def check_counts(args: argparse.Namespace, *names: str) -> None:
    """Refuses counts below 1; one that was left out is None.

    Raises:
        UserError: the first such argument.
    """
    from grm_jax.errors import UserError

    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {value}")


def load_judge(args: argparse.Namespace) -> "Judge":
    """Loads the judge `args.model`; what is not given of the sampling policy is gin's.

    Raises:
        UserError: as `Judge.load`, or a policy that means nothing.
    """
    from grm_jax.cli import configure
    from grm_jax.judge.judge import Judge
    from grm_jax.sampling.policy import SamplingPolicy

    given = {"temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p, "min_p": args.min_p}
    policy = configure.make(SamplingPolicy, **{name: value for name, value in given.items() if value is not None})
    return Judge.load(
        args.model, template=args.template, dtype=args.dtype, weights=args.weights, policy=policy,
        max_new=args.max_new, rows=args.rows, cache=args.cache,
    )  # fmt: skip
