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
from grm_jax.data.critiques import ArenaCritiques, ArenaInstructions, ArenaReadings
from grm_jax.data.mixture import ARENA, SftData, Streams
from grm_jax.errors import UserError
from grm_jax.model.config import Gemma2Config
from grm_jax.paradigms.recipe import Paradigms
from grm_jax.parallel.layout import make_layouts, set_layouts
from grm_jax.parallel.meshes import DecodeMesh, TrainMesh
from grm_jax.sampling.policy import SamplingPolicy
from grm_jax.spct.recipe import BaseRecipe, Recipe, RftRecipe, Spct, shifted
from grm_jax.spct.rejection import Rft
from grm_jax.spct.sft_stage import ArenaTokenizer, NewModel
from grm_jax.train.grpo import Grpo
from grm_jax.train.meta_rm import MetaRm
from grm_jax.train.reward_models import RewardModel
from grm_jax.train.sft import Sft

_CONFIGURABLE = (
    Gemma2Config, SamplingPolicy, Sft, MetaRm, Grpo, Rft, Spct, ArenaCritiques, ArenaInstructions, ArenaReadings,
    ArenaTokenizer, Noise, SftData, TrainMesh, DecodeMesh, Paradigms, RewardModel,
)  # fmt: skip
SCOPES = ("base", "rft")
"""Scopes of `recipe`."""
_STREAMS: dict[str, Any] = {
    ARENA: ArenaCritiques,
    "arena_instructions": ArenaInstructions,
    "arena_readings": ArenaReadings,
}
_registered = {cls: gin.external_configurable(cls, name=cls.__name__, module="grm_jax") for cls in _CONFIGURABLE}
_sources: list[tuple[str, str]] = []  # (place, line) of all that was read last, for messages; later ones win

T = typing.TypeVar("T")


def load(files: Sequence[str], bindings: Sequence[str], scopes: Sequence[str] = (), *, meshes: bool = True) -> None:
    """Reads gin files, then single bindings such as `Sft.steps=10`, over a clean configuration, and sets the meshes of the run.

    Args:
        files: read in order; later ones win.
        bindings: win over files.
        meshes: set those of the run; without it they may be of devices that are not there.
        scopes: those that `make` will be asked for: `base/Sft.steps = 10` is a setting in the scope "base".

    Raises:
        UserError: a missing file, a syntax error, an unknown name or scope, a missing macro or a value of the wrong type,
            with its place.
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
    known = _check_scopes(scopes)
    for cls in _CONFIGURABLE:
        for name, annotation in typing.get_type_hints(cls).items():
            for scope in ("", *known):
                _check_type(_binding(cls, name, scope), annotation)
    if meshes:
        set_layouts(make_layouts(make(TrainMesh), make(DecodeMesh)))


def make(cls: type[T], *, scope: str = "", **given: Any) -> T:
    """Builds one of the registered dataclasses from the configuration; `given` values win, then those of the scope.

    Raises:
        UserError: a required setting is nowhere to be found, or a value is refused.
    """
    binding_of = {
        name: next((b for b in (_binding(cls, name, scope), _binding(cls, name)) if _is_bound(b)), None)
        for name in typing.get_type_hints(cls)
    }
    bound = {name for name, binding in binding_of.items() if binding}
    required = {
        field.name
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - bound - given.keys())
    if missing:
        names = ", ".join(_binding(cls, name, scope) for name in missing)
        remedy = f"add a --gin_file that sets it, or --gin.{_binding(cls, missing[0], scope)}=VALUE"
        raise UserError(f"configuration: {names} not set; {remedy}")
    try:
        with gin.config_scope(scope or None):
            return _registered[cls](**given)  # type: ignore[index]
    except (UserError, ValueError, TypeError) as error:
        message = str(error).strip().splitlines()[0]  # gin adds lines of its own
        named = [name for name in bound - given.keys() if re.search(rf"\b{name}\b", message)]
        place = f"{_place(binding_of[named[0]] or '')}: " if named else ""
        raise UserError(place + message) from error


def streams(scope: str = "") -> Streams:
    """Returns the endless streams of examples by the names they have among `SftData.sources`, as configured in a scope."""
    return {name: make(cls, scope=scope) for name, cls in _STREAMS.items()}


def new_model(scope: str = "") -> NewModel:
    """Returns the model to be made from nothing, as configured in a scope."""
    return NewModel(make(Gemma2Config, scope=scope), make(ArenaTokenizer, scope=scope))


def recipe(chosen: Sequence[str], **given: Any) -> Recipe:
    """Builds the recipe of an SPCT run; only the stages chosen need settings. `given` values of `Spct` win.

    The supervised stages have a scope each, "base" and "rft" (`SCOPES`).

    Raises:
        UserError: as `make`.
    """
    spct = make(Spct, **given)
    base = rft = None
    if "base" in chosen and not spct.base:
        base = BaseRecipe(new_model("base"), make(SftData, scope="base"), _shifted(Sft, spct, "base"))
    if "rft" in chosen:
        rft = RftRecipe(_shifted(Rft, spct), _shifted(Sft, spct, "rft"), spct.seed)
    return Recipe(
        spct, streams("base"), base, rft,
        grpo=_shifted(Grpo, spct) if "grpo" in chosen else None,
        meta=_shifted(MetaRm, spct) if "meta" in chosen else None,
    )  # fmt: skip


def _shifted(cls: type[T], spct: Spct, scope: str = "") -> T:
    return shifted(make(cls, scope=scope), spct.seed)


def operative() -> str:
    """The configuration that was really used, in gin's own form."""
    return gin.operative_config_str()


def _binding(cls: type, name: str, scope: str = "") -> str:
    return f"{scope}/{cls.__name__}.{name}" if scope else f"{cls.__name__}.{name}"


def _check_scopes(scopes: Sequence[str]) -> list[str]:
    """Refuses settings in a scope that nothing will be made in: gin would pass over them without a word.

    Returns:
        The scopes there are: those given, and those of references such as `@hinted/Noise()`.
    """
    text = gin.config_str()
    known = sorted({*scopes, *re.findall(r"@([\w./]+)/\w+", text)})
    for scope, name in re.findall(r"^# Parameters for ([\w./]+)/([\w.]+):$", text, re.MULTILINE):
        if scope not in known:
            written = re.compile(rf"^\s*{re.escape(scope)}/")
            place = next((place for place, line in reversed(_sources) if written.search(line)), "configuration")
            there = f"known here: {', '.join(scopes)}" if scopes else "there are none here"
            raise UserError(f"{place}: {scope}/{name}: the scope '{scope}' is not known; {there}")
    return known


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
    scope, slash, name = binding.rpartition("/")
    written = re.compile(rf"^\s*{re.escape(scope + slash)}(?:\w+\.)*{re.escape(name)}\s*=")
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
