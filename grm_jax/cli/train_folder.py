"""The run folder of a training: what it is made from, and whether it may be gone on in."""

import argparse
import hashlib
from itertools import zip_longest
from pathlib import Path
from typing import Any

INPUTS = "inputs.json"


def input_names(args: argparse.Namespace) -> dict[str, Any]:
    """Names what a run is made from, by option: each folder or file by its own name and by what is in it.

    Raises:
        UserError: one of them cannot be read.
    """
    from grm_jax.checkpoints.folder import fingerprint
    from grm_jax.judge.loading import model_folder
    from grm_jax.judge.meta import has_head, meta_name

    def name(model: str | None) -> str | None:
        if model is None:
            return None
        folder = model_folder(model)
        return meta_name(folder) if has_head(folder) else f"{folder.resolve().name}@{fingerprint(folder)}"

    trajectories = [_trajectories_name(Path(source)) for source in args.trajectories]
    return {"model": name(args.model), "reference": name(args.reference), "trajectories": trajectories}


def _trajectories_name(source: Path) -> str:
    from grm_jax.errors import UserError
    from grm_jax.judge.run_store import SAMPLES

    file = source / SAMPLES if source.is_dir() else source
    try:
        with file.open("rb") as f:
            digest = hashlib.file_digest(f, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        problem = f"--trajectories {source}: {file} cannot be read: {error.strerror}"
        raise UserError(f"{problem}; give a trajectories.jsonl or the run folder of a judge") from error
    return f"{source.resolve().name}@{digest}"


def begin(output: Path, configuration: str, inputs: dict[str, Any]) -> None:
    """Makes the run folder, or goes on in one that was left with the same configuration and inputs.

    Before its first checkpoint there is nothing to go on with, so another configuration may begin anew.

    Raises:
        UserError: the folder holds something else, or a run of another configuration or of other inputs.
    """
    from grm_jax.checkpoints.files import write_json
    from grm_jax.errors import UserError
    from grm_jax.parallel import hosts
    from grm_jax.train.checkpointing import steps
    from grm_jax.train.loop import CHECKPOINTS

    record = output / "config.gin"
    if record.is_file() and steps(output / CHECKPOINTS):
        _check_unchanged(output, record, configuration, inputs)
        return
    if not record.is_file() and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: exists already; give --output a new folder")
    hosts.wait("the run folder is looked at")
    if hosts.is_leader():
        output.mkdir(parents=True, exist_ok=True)
        record.write_text(configuration, encoding="utf-8")
        write_json(output, INPUTS, inputs)
    hosts.wait("the run folder is made")


def _check_unchanged(output: Path, record: Path, configuration: str, inputs: dict[str, Any]) -> None:
    from grm_jax.checkpoints.files import read_json
    from grm_jax.errors import UserError

    before, now = (_of_the_result(text) for text in (record.read_text(encoding="utf-8"), configuration))
    if before != now:
        changed = next((new for old, new in zip_longest(before, now) if old != new), None)
        raise UserError(
            f"{record}: the run was begun with another configuration (now: {changed}); give another --output"
        )
    if not (output / INPUTS).exists():  # begun before inputs were kept
        return
    begun = read_json(output, INPUTS)
    for option, now in inputs.items():
        if begun.get(option) != now:
            then, asked = (_shown(value) for value in (begun.get(option), now))
            raise UserError(
                f"{output}: the run was begun with --{option} {then}, now {asked} is asked; "
                "give it as it was, or another --output"
            )


def _of_the_result(configuration: str) -> list[str]:
    """Settings that the result depends on: a run may go on on other meshes."""
    passed_over = ("#", "TrainMesh.", "DecodeMesh.")
    return [line for line in configuration.splitlines() if line and not line.startswith(passed_over)]


def _shown(names: str | list[str] | None) -> str:
    return (names if isinstance(names, str) else ", ".join(names or ())) or "left out"
