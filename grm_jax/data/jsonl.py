"""JSON lines on disk: strict reading with one clear message for each bad line, and atomic writing."""

import codecs
import functools
import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NoReturn

from grm_jax.data import fields
from grm_jax.data.layouts import LAYOUTS, item_from_layout
from grm_jax.data.records import Item
from grm_jax.errors import UserError

_LOG = logging.getLogger(__name__)
_MAX_DIGITS = 20  # what a 64-bit integer needs; also keeps int() from quadratic work on hostile input


def read_jsonl_items(
    path: str | Path,
    *,
    layout: str = "items",
    on_error: Literal["stop", "skip"] = "stop",
    report: Callable[[str], None] = _LOG.warning,
) -> list[Item]:
    """Reads the items of a JSONL file in file order; blank lines and a byte order mark are allowed.

    With `on_error="skip"`, each bad line and the final count of them go to `report`, and the other lines are kept; of
    two items with one id the first is kept.

    Raises:
        UserError: "FILE:LINE: field: what is wrong; what to do"; or the file cannot be read, or yields no item.
    """
    table = LAYOUTS[fields.read_choice(layout, LAYOUTS, str(path), "layout")]
    if table is not None and table.rows > 1:
        raise UserError(f"{path}: layout {layout} has {table.rows} lines an item; use `grm data convert` first")
    items: list[Item] = []
    first_line: dict[str, int] = {}
    bad = 0
    for index, (number, line) in enumerate(read_lines(path)):
        where = f"{path}:{number}"
        try:
            item = item_from_layout(layout, parse_line(line, where), where, index)
            if item.id in first_line:
                problem = f"{fields.show(item.id)} already stands on line {first_line[item.id]}"
                fields.fail(where, "id", problem, "give each item an id of its own")
        except UserError as error:
            if on_error == "stop":
                raise
            bad += 1
            report(str(error))
            continue
        first_line[item.id] = number
        items.append(item)
    if bad:
        report(f"{path}: left out {bad} of {bad + len(items)} lines")
    if not items:
        problem = "none of its lines is a valid item" if bad else "is empty"
        raise UserError(f"{path}: {problem}; give one JSON object on each line")
    return items


def read_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Yields (line number from 1, raw line with its end) of every line that is not blank, without a byte order mark.

    Raises:
        UserError: the file cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if line.strip():
                    yield number, line
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a directory; give a JSONL file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from None


def parse_line(line: bytes, where: str) -> Any:
    """Parses one line as strict JSON: UTF-8, no key twice, finite numbers, integers of at most 20 digits.

    Raises:
        UserError: "WHERE: what is wrong; what to do".
    """
    try:
        return _decoder().decode(line.decode("utf-8").rstrip("\r\n"))
    except UnicodeDecodeError as error:
        problem = f"invalid UTF-8 at byte {error.start + 1} of the line; save the file as UTF-8"
    except json.JSONDecodeError as error:
        problem = f"not valid JSON at column {error.colno} ({error.msg}); put one whole JSON object on the line"
    except RecursionError:
        problem = "JSON nested too deep; flatten it"
    except _Refused as error:
        problem = str(error)
    raise UserError(f"{where}: {problem}")


def dump_line(obj: Any) -> bytes:
    """Writes one object as one line of UTF-8 JSON, line end included."""
    return json.dumps(obj, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"


def write_jsonl(path: str | Path, objects: Iterable[Any]) -> None:
    """Writes objects one a line, all or nothing: a reader sees the old file or the whole new one, crash or not."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            for obj in objects:
                file.write(dump_line(obj))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@functools.cache
def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)


class _Refused(ValueError):
    """Valid for Python's JSON reader, refused by ours."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    obj = dict(pairs)
    if len(obj) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Refused(f"{fields.show(twice)}: key given twice; keep one")
    return obj


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise _Refused(f"integer of {len(digits)} digits; write it as a string or shorten it")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _Refused(f"number {fields.show(digits)} is too large; use a smaller one")
    return number


def _constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is no JSON value; write null or leave the field out")
