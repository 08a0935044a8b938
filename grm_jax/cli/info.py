"""`grm info`: what is in a model folder or a run folder, without loading weights."""

import argparse
import collections
import dataclasses
import json
import math
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from grm_jax.errors import UserError

_EXAMPLES = """\
examples:
  grm info gemma-2-2b-it
  grm info run/judge --json | jq .outcomes"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "info",
        help="describe a model folder or a run folder",
        description="Describe a model folder (Hugging Face or Orbax) or a run folder. Weights are not loaded.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="a model folder or a run folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the description as a table or as JSON."""
    facts = describe(args.path)
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), _cell(value))
    Console(markup=False, highlight=False).print(table)  # brackets in file names are no markup
    return 0


def describe(path: Path) -> dict[str, Any]:
    """Describes a folder as a JSON object.

    Raises:
        UserError: it is neither a run nor a (sound) model folder.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give a model folder or a run folder")
    if (path / "run.json").exists():
        return _describe_run(path)
    names = {p.name for p in path.iterdir()}
    if not names & {"config.json", "params"} and not any(".safetensors" in name for name in names):
        raise UserError(f"{path}: neither a model folder (config.json and weights) nor a run folder (run.json)")
    return _describe_model(path)


def _describe_model(path: Path) -> dict[str, Any]:
    from grm_jax.checkpoints.folder import fingerprint, kind, leaves  # jax and Orbax: seconds that help can do without

    config, found = leaves(path)
    files = {p.relative_to(path).as_posix(): p.stat().st_size for p in sorted(path.rglob("*")) if p.is_file()}
    return {
        "path": str(path),
        "kind": kind(path),
        "parameters": sum(math.prod(shape) for shape, _ in found.values()),
        "dtype": " and ".join(sorted({dtype.name for _, dtype in found.values()})),
        "weight_bytes": sum(math.prod(shape) * dtype.itemsize for shape, dtype in found.values()),
        "context": config.max_length,
        "config": dataclasses.asdict(config),
        "tokenizer": _tokenizer(path),
        "template": _template(path),
        "fingerprint": fingerprint(path),
        "files": files,
    }


def _tokenizer(path: Path) -> str | None:
    if (path / "tokenizer.model").is_file():
        return "sentencepiece (tokenizer.model)"
    return "tokenizers (tokenizer.json)" if (path / "tokenizer.json").is_file() else None


def _template(path: Path) -> str | None:
    file = path / "template.toml"
    if not file.is_file():
        return None
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not valid TOML: {error}") from error
    return str(data.get("name", file.name))


def _describe_run(path: Path) -> dict[str, Any]:
    try:
        identity = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path / 'run.json'}: cannot be read as JSON: {error}") from error
    if not isinstance(identity, dict):
        raise UserError(f"{path / 'run.json'}: must hold a JSON object")
    items: set[str] = set()
    outcomes: collections.Counter[str] = collections.Counter()
    for record in _samples(path / "samples.jsonl"):
        items.add(record["id"])
        outcomes[record["outcome"]] += 1
    return {
        "path": str(path),
        "kind": "run",
        "model": identity.pop("model", None),
        "settings": identity,
        "items": len(items),
        "samples": outcomes.total() - outcomes["prompt_too_long"],  # those items were never sampled
        "outcomes": {name: count for name, count in sorted(outcomes.items()) if count},
    }


def _samples(file: Path) -> Iterator[dict[str, Any]]:
    """The records of samples.jsonl; a torn last line, which a running or killed job leaves, is left out."""
    if not file.exists():
        return
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{file}:{number}: not valid JSON: {error}") from error
            if not isinstance(record, dict) or not all(isinstance(record.get(key), str) for key in ("id", "outcome")):
                raise UserError(f"{file}:{number}: not a sample: it needs the strings id and outcome")
            yield record


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_cell(entry)}" for key, entry in value.items()) or "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
