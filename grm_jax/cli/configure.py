"""gin: what can be configured, and errors that name file and line.

The library itself does not know gin: its settings are frozen dataclasses, registered here from outside.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin

from grm_jax.data.arena.oracle import Noise
from grm_jax.data.critiques import ArenaCritiques
from grm_jax.errors import UserError
from grm_jax.model.config import Gemma2Config
from grm_jax.sampling.policy import SamplingPolicy
from grm_jax.train.sft import Sft


@dataclasses.dataclass(frozen=True)
class ArenaTokenizer:
    """A tokenizer trained on the arena's own text.

    Attributes:
        examples: how many training examples its text is taken from.
        seed: of those examples.
    """

    examples: int = 4000
    seed: int = 0


_CONFIGURABLE = (Gemma2Config, SamplingPolicy, Sft, ArenaCritiques, ArenaTokenizer, Noise)
_registered = {cls: gin.external_configurable(cls, name=cls.__name__, module="grm_jax") for cls in _CONFIGURABLE}

T = typing.TypeVar("T")


def load(files: Sequence[str], bindings: Sequence[str]) -> None:
    """Reads gin files, then single bindings such as `Sft.steps=10`, over a clean configuration.

    Raises:
        UserError: a missing file, a syntax error, an unknown name, a missing macro or a value of the wrong type, with its place.
    """
    gin.clear_config()
    for file in files:
        if not Path(file).is_file():
            raise UserError(f"{file}: no such gin file; the shipped ones are in configs/models and configs/runs")
    try:
        gin.parse_config_files_and_bindings(list(files), list(bindings), finalize_config=False, print_includes_and_imports=False)
    except (SyntaxError, ValueError, TypeError, NameError, AttributeError, LookupError) as error:
        raise UserError(_one_line(error, files, bindings)) from error
    for cls in _CONFIGURABLE:
        for name, annotation in typing.get_type_hints(cls).items():
            binding = f"{cls.__name__}.{name}"
            try:
                value = gin.query_parameter(binding)
            except ValueError:  # not bound
                continue
            if not _fits(value, annotation):
                expected = getattr(annotation, "__name__", str(annotation))
                raise UserError(f"{_place(binding, files, bindings)}: {binding} = {value!r} must be of type {expected}")


def make(cls: type[T], **given: Any) -> T:
    """Builds one of the registered dataclasses from the configuration; `given` values win.

    Raises:
        UserError: a required setting is nowhere to be found.
    """
    bound = {name for name in typing.get_type_hints(cls) if _is_bound(f"{cls.__name__}.{name}")}
    required = {
        field.name
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - bound - given.keys())
    if missing:
        names = ", ".join(f"{cls.__name__}.{name}" for name in missing)
        raise UserError(f"configuration: {names} not set; add a --gin_file that sets it, or --gin.{cls.__name__}.{missing[0]}=VALUE")
    try:
        return _registered[cls](**given)  # type: ignore[index]
    except (ValueError, TypeError) as error:
        raise UserError(f"configuration of {cls.__name__}: {_first_line(error)}") from error


def has(cls: type) -> bool:
    """Whether any setting of a dataclass was given."""
    return any(_is_bound(f"{cls.__name__}.{name}") for name in typing.get_type_hints(cls))


def operative() -> str:
    """The configuration that was really used, in gin's own form."""
    return gin.operative_config_str()


def _is_bound(binding: str) -> bool:
    try:
        gin.query_parameter(binding)
    except ValueError:
        return False
    return True


def _fits(value: Any, annotation: Any) -> bool:
    if isinstance(annotation, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(annotation))
    if annotation is type(None):
        return value is None
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (str, bool):
        return isinstance(value, annotation)
    return True  # a reference to another configurable


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


def _one_line(error: BaseException, files: Sequence[str], bindings: Sequence[str]) -> str:
    """gin's message in one line, with the file and line it is about in front."""
    text = " ".join(str(error).split())
    found = re.search(r'In file "([^"]+)", line (\d+)', text)
    if found:
        rest = (text[: found.start()] + text[found.end() :]).strip(" ;:")
        return f"{found[1]}:{found[2]}: {rest}"
    quoted = re.search(r"'([\w./]+)'|\"([\w./]+)\"|([A-Z]\w+\.\w+)", text)
    name = next((group for group in quoted.groups() if group), "") if quoted else ""
    return f"{_place(name, files, bindings)}: {text}"


def _place(name: str, files: Sequence[str], bindings: Sequence[str]) -> str:
    """Where a binding is written; the last one wins, as in gin."""
    if any(name and name in binding for binding in bindings):
        return f"--gin.{next(b for b in reversed(bindings) if name in b)}"
    for file in reversed(files):
        for number, line in reversed(list(enumerate(Path(file).read_text(encoding="utf-8").splitlines(), 1))):
            if name and name in line.split("#")[0]:
                return f"{file}:{number}"
    return "gin configuration"
