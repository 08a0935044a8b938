"""Reading untrusted JSON values: every refusal is one line that names the place, the field and the remedy.

`where` is the place as the user knows it ("items.jsonl:12"); `field` is the path inside the object
("responses[1]"). A value of the right type is returned as it is.
"""

import difflib
import json
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn, TypeVar

from grm_jax.errors import UserError

MAX_TEXT_BYTES = 524_288
"""Longest text field, in bytes of UTF-8: far above any context window, far below what makes a process struggle."""

Value = TypeVar("Value")
_KINDS = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "an array", dict: "an object"}


def fail(where: str, field: str, problem: str, remedy: str) -> NoReturn:
    """Raises the `UserError` for one field."""
    raise UserError(f"{where}: {field}: {problem}; {remedy}")


def kind(value: Any) -> str:
    """Names the JSON type of a value, for messages ("a string", "null")."""
    return "null" if value is None else _KINDS.get(type(value), f"a Python {type(value).__name__}")


def show(value: Any) -> str:
    """Writes a value on one short line, for messages."""
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a huge integer"
    line = repr(value)
    return line if len(line) <= 60 else line[:57] + "..."


def read_object(value: Any, where: str, field: str) -> dict[str, Any]:
    """Returns a JSON object, or refuses the value."""
    if not isinstance(value, dict):
        fail(where, field, f"must be an object, found {kind(value)}", 'write it as {"key": value}')
    return value


def read_array(value: Any, where: str, field: str) -> list[Any]:
    """Returns a JSON array (a tuple counts as one), or refuses the value."""
    if not isinstance(value, list | tuple):
        fail(where, field, f"must be an array, found {kind(value)}", "write it as [...]")
    return list(value)


def read_text(value: Any, where: str, field: str) -> str:
    """Returns a string that is valid Unicode and at most `MAX_TEXT_BYTES` long, or refuses the value."""
    if not isinstance(value, str):
        hint = "only plain text can be judged, join its parts" if isinstance(value, list) else "write it in quotes"
        fail(where, field, f"must be a string, found {kind(value)}", hint)
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        fail(where, field, f"holds a lone surrogate at character {error.start}", "write valid Unicode")
    if size > MAX_TEXT_BYTES:
        fail(where, field, f"is {size:,} bytes long, the limit is {MAX_TEXT_BYTES:,}", "shorten it")
    return value


def read_name(value: Any, where: str, field: str) -> str:
    """Returns a text that is not empty, or refuses the value."""
    name = read_text(value, where, field)
    if not name:
        fail(where, field, "is empty", "give it a name")
    return name


def read_choice(value: Any, choices: Collection[str], where: str, field: str) -> str:
    """Returns a string that is one of `choices`, or refuses the value."""
    if not isinstance(value, str) or value not in choices:
        fail(where, field, f"{show(value)} is not known", f"use one of {', '.join(choices)}")
    return value


def read_integer(value: Any, where: str, field: str, low: int, high: int) -> int:
    """Returns an integer in low..high (a boolean is none), or refuses the value."""
    if not isinstance(value, int) or isinstance(value, bool):
        found = show(value) if isinstance(value, float) else kind(value)
        fail(where, field, f"must be an integer, found {found}", f"use {low}..{high}")
    if not low <= value <= high:
        fail(where, field, f"{show(value)} is out of range", f"use {low}..{high}")
    return value


def read_number(value: Any, where: str, field: str, low: float = -math.inf, high: float = math.inf) -> int | float:
    """Returns a finite number in low..high (a boolean is none), or refuses the value."""
    bounds = "use a finite number" if math.isinf(low) and math.isinf(high) else f"use a number in {low}..{high}"
    if not isinstance(value, int | float) or isinstance(value, bool):
        fail(where, field, f"must be a number, found {kind(value)}", bounds)
    if not math.isfinite(value) or not low <= value <= high:
        fail(where, field, f"{show(value)} is out of range", bounds)
    return value


def read_extra(value: Any, where: str, field: str) -> dict[str, Any]:
    """Returns an object of the user's own, which must be plain JSON, valid Unicode and not larger than a text field."""
    extra = read_object(value, where, field)
    try:
        written = json.dumps(extra, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        fail(where, field, f"cannot be written as JSON ({error})", "keep plain strings, numbers, arrays and objects")
    read_text(written, where, field)
    return extra


def read_texts(value: Any, where: str, field: str) -> tuple[str, ...]:
    """Returns an array of texts, or refuses the first element that is none."""
    array = read_array(value, where, field)
    return tuple(read_text(text, where, f"{field}[{i}]") for i, text in enumerate(array))


def read_integers(value: Any, where: str, field: str, low: int, high: int) -> tuple[int, ...]:
    """Returns an array of integers in low..high, or refuses the first element that is none."""
    array = read_array(value, where, field)
    return tuple(read_integer(number, where, f"{field}[{i}]", low, high) for i, number in enumerate(array))


def read_optional(read: Callable[[Any, str, str], Value], value: Any, where: str, field: str) -> Value | None:
    """Returns None for null, else what `read` makes of the value."""
    return None if value is None else read(value, where, field)


def check_keys(
    obj: Mapping[str, Any], known: Collection[str], required: Collection[str], where: str, hint: str
) -> None:
    """Refuses a key that is not in `known` (with the nearest known one, else `hint`) and a missing required key."""
    for key in obj:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            fail(where, show(key), "unknown field", f"did you mean '{near[0]}'? {hint}" if near else hint)
    for key in required:
        if key not in obj:
            fail(where, key, "missing", "add it")
