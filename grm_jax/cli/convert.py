"""`grm convert`: from one kind of model folder to the other."""

import argparse
import importlib.util
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

_DESCRIPTION = """\
Convert a Gemma-2 model between a Hugging Face folder (config.json, *.safetensors) and an Orbax folder (config.json,
params/). Tokenizer and prompt template files are copied along. Nothing is overwritten."""

_EXAMPLES = """\
examples:
  grm convert --from gemma-2-2b-it --to gemma-2-2b-it-orbax --verify
  grm convert --from run/checkpoint --to release --dtype bfloat16     (Orbax in, so Hugging Face out)
  grm convert --from gemma-2-2b-it --to wide --format huggingface --dtype float32"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "convert",
        help="convert a model between Hugging Face and Orbax folders",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--from", dest="source", type=Path, required=True, metavar="DIR", help="model folder to read")
    parser.add_argument("--to", dest="target", type=Path, required=True, metavar="DIR", help="new folder to write")
    parser.add_argument("--format", choices=["huggingface", "orbax"], help="kind to write (default: the other kind)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="dtype of the weights (default: as stored)")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read the result again, compare every bit, and compare float32 logits with transformers (needs torch)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Converts, and verifies if asked to."""
    # jax and Orbax take seconds to import: not for --help
    from grm_jax.checkpoints.convert import convert
    from grm_jax.checkpoints.verify import verify_params

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        stages: dict[str, TaskID] = {}

        def report(stage: str, done: int = 0, total: int = 0) -> None:
            if stage not in stages:
                for earlier in stages.values():
                    progress.update(earlier, completed=1, total=1)
                stages[stage] = progress.add_task(stage, total=None)
            progress.update(stages[stage], completed=done, total=total or None)

        written = convert(args.source, args.target, target_kind=args.format, dtype=args.dtype, report=report)
        lines = [f"wrote {args.target} ({written})"]
        if args.verify:
            report("comparing weights")
            count = verify_params(args.source, args.target, args.dtype)
            lines.append(
                f"weights: {count:,} parameters equal bit for bit" + (f" as {args.dtype}" if args.dtype else "")
            )
            report("comparing logits")
            lines.append(f"logits: {_compare_logits(args.target if written == 'huggingface' else args.source)}")
        report("done", 1, 1)
    print("\n".join(lines))
    return 0


def _compare_logits(folder: Path) -> str:
    from grm_jax.checkpoints.folder import kind
    from grm_jax.checkpoints.verify import compare_with_transformers

    if kind(folder) != "huggingface":
        return "not compared with transformers, because neither folder is a Hugging Face one"
    if importlib.util.find_spec("torch") is None:
        return "not compared with transformers, because torch is not installed (pip install torch)"
    compared = compare_with_transformers(folder)
    reach = "beyond" if compared.beyond_window else "within"
    return (
        f"largest difference from transformers in float32 {compared.largest:.3g}, "
        f"on {compared.tokens} random tokens ({reach} the sliding window)"
    )
