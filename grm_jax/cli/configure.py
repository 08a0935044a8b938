"""gin: what can be configured, and errors that name file and line.

The library itself does not know gin: its settings are frozen dataclasses, registered here from outside.
"""

import copy
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
from grm_jax.data.mixture import SftData
from grm_jax.errors import UserError
from grm_jax.model.config import Gemma2Config
from grm_jax.sampling.policy import SamplingPolicy
from grm_jax.spct.rejection import Rft
from grm_jax.train.meta_rm import MetaRm
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


_CONFIGURABLE = (Gemma2Config, SamplingPolicy, Sft, MetaRm, ArenaCritiques, ArenaTokenizer, Noise, SftData, Rft)
_registered = {cls: gin.external_configurable(cls, name=cls.__name__, module="grm_jax") for cls in _CONFIGURABLE}
_sources: list[tuple[str, str]] = []  # (place, line) of all that was read last, for messages; later ones win

T = typing.TypeVar("T")


def load(files: Sequence[str], bindings: Sequence[str]) -> None:
    """Reads gin files, then single bindings such as `Sft.steps=10`, over a clean configuration.

    Raises:
        UserError: a missing file, a syntax error, an unknown name, a missing macro or a value of the wrong type, with
            its place.
    """
    gin.clear_config()
    _sources.clear()
    for file in files:
        if not Path(file).is_file():
            raise UserError(f"{file}: no such gin file; the shipped ones are in configs/models and configs/runs")
        try:
            _note(gin.parse_config_file(file, print_includes_and_imports=False))
        except Exception as error:  # a parser's, a tokenizer's, a decoder's, or that of a module the file imports
            raise UserError(_with_place(error, file)) from error
    for binding in bindings:
        try:
            gin.parse_config([binding])
        except Exception as error:
            raise UserError(f"--gin.{binding}: {_message(error)}") from error
        _sources.append((f"--gin.{binding}", binding))
    for cls in _CONFIGURABLE:
        for name, annotation in typing.get_type_hints(cls).items():
            _check_type(f"{cls.__name__}.{name}", annotation)


def make(cls: type[T], **given: Any) -> T:
    """Builds one of the registered dataclasses from the configuration; `given` values win.

    Raises:
        UserError: a required setting is nowhere to be found, or a value is refused.
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
        remedy = f"add a --gin_file that sets it, or --gin.{cls.__name__}.{missing[0]}=VALUE"
        raise UserError(f"configuration: {names} not set; {remedy}")
    try:
        return _registered[cls](**given)  # type: ignore[index]
    except (UserError, ValueError, TypeError) as error:
        message = str(error).strip().splitlines()[0]  # gin adds lines of its own
        named = [name for name in bound - given.keys() if re.search(rf"\b{name}\b", message)]
        place = f"{_place(f'{cls.__name__}.{named[0]}')}: " if named else ""
        raise UserError(place + message) from error


def operative() -> str:
    """The configuration that was really used, in gin's own form."""
    return gin.operative_config_str()


def _is_bound(binding: str) -> bool:
    try:
        gin.query_parameter(binding)
    except ValueError:
        return False
    return True


def _check_type(binding: str, annotation: Any) -> None:
    if not _is_bound(binding):
        return
    value = gin.query_parameter(binding)
    try:
        value = copy.deepcopy(value)  # which is how gin looks up macros and makes what is referred to
    except Exception as error:
        macro = re.search(r"%([\w.]+)", repr(value))
        problem = f"the macro {macro[1]} is not set; add a line {macro[1]} = VALUE" if macro else _message(error)
        raise UserError(f"{_place(binding)}: {binding}: {problem}") from error
    if not _fits(value, annotation):
        expected = getattr(annotation, "__name__", str(annotation))
        raise UserError(f"{_place(binding)}: {binding} = {value!r} must be of type {expected}")


def _fits(value: Any, annotation: Any) -> bool:
    if isinstance(annotation, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(annotation))
    if annotation in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if annotation is float else annotation)


def _note(parsed: Any) -> None:
    """Remembers the lines of a file that was read, after those of the files it includes."""
    for included in parsed.includes:
        _note(included)
    lines = Path(parsed.filename).read_text(encoding="utf-8").splitlines()
    _sources.extend((f"{parsed.filename}:{number}", line.split("#")[0]) for number, line in enumerate(lines, 1))


def _place(binding: str) -> str:
    """Where a binding is written; the last one wins, as in gin."""
    written = re.compile(rf"(?:^|[\s./]){re.escape(binding)}\s*=")
    return next((place for place, line in reversed(_sources) if written.search(line)), "configuration")


def _message(error: BaseException) -> str:
    """gin's message in one line, without the places it names in its own way."""
    text = error.msg if isinstance(error, SyntaxError) else str(error.args[0] if error.args else error)
    text = re.split(r"\s+In (?:file|bindings string)\b", text)[0]
    return " ".join(text.split()) or type(error).__name__


def _with_place(error: BaseException, file: str) -> str:
    """The message with the file and line it is about in front."""
    found = re.search(r'In file "([^"]+)", line (\d+)', str(error))
    if found:
        return f"{found[1]}:{found[2]}: {_message(error)}"
    if isinstance(error, SyntaxError):
        return f"{error.filename or file}:{error.lineno}: {_message(error)}"
    if isinstance(error, UnicodeDecodeError):
        return f"{file}: is not UTF-8 text; save it as UTF-8"
    match error.args:
        case (str(text), (int(line), int())):  # the tokenizer's own error
            return f"{file}:{line}: {text}"
    return f"{file}: {_message(error)}"
