"""What the samples of a run depend on, in its `run.json`: a store never mixes two."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grm_jax.data import fields
from grm_jax.data.jsonl import dump_line, parse_line, write_jsonl
from grm_jax.errors import UserError
from grm_jax.judge.run_store import SAMPLES

_IDENTITY = "run.json"


def read_identity(path: str | Path) -> dict[str, Any]:
    """Returns what `run.json` says of a run.

    Raises:
        UserError: the folder is no run folder.
    """
    path = Path(path)
    identity = _read_identity(path)
    if identity is None:
        raise UserError(f"{path}: holds no {_IDENTITY}; give the output folder of a judging run")
    return identity


def has_identity(path: Path) -> bool:
    """Tells whether the folder is a run's."""
    return (path / _IDENTITY).exists()


def settle_identity(path: Path, identity: Mapping[str, Any]) -> None:
    """Writes the identity of a new run, or compares it with that of one there is.

    Raises:
        UserError: they differ, or the folder holds samples of no run.
    """
    stored = _read_identity(path)
    if stored is None:
        if (path / SAMPLES).exists():
            raise UserError(f"{path}: holds {SAMPLES} but no {_IDENTITY}; restore it or use another output folder")
        write_jsonl(path / _IDENTITY, [identity])
        return
    before, after = _flat(stored), _flat(identity)
    for key in [*before, *after]:
        was, now = before.get(key), after.get(key)
        if was != now:
            raise UserError(
                f"{path}: this run was made with {key} = {fields.show(was)}, now {fields.show(now)} is asked; "
                "keep the setting or use another output folder"
            )


def _read_identity(path: Path) -> dict[str, Any] | None:
    file = path / _IDENTITY
    if not file.exists():
        return None
    return _checked(parse_line(file.read_bytes(), str(file)), str(file))


def checked_identity(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an identity as JSON keeps it.

    Raises:
        UserError: it lacks a model, a template or a seed.
    """
    return _checked(parse_line(dump_line(dict(given)), "identity"), "identity")


def _checked(obj: Any, where: str) -> dict[str, Any]:
    identity = fields.read_object(obj, where, "identity")
    fields.check_keys(identity, identity.keys(), ("model", "template", "seed"), where, "")
    fields.read_integer(identity["seed"], where, "seed", -(2**64), 2**64)
    return identity


def _flat(obj: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a nested object as one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in obj.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
