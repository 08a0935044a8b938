r"""Template files: the wording a judge is driven with, kept as data.

A template is a TOML file, so that weights trained on one wording can be driven with exactly that wording:

    name = "mine"
    principles_heading = "Specific Criteria:"   # the start of the line on which the model writes its principles
    answer = "scores"                           # * what the model's block holds: "scores", or the place of the "best" response

    [roles]                                     # how roles are shown; a role not named here is shown as it is
    user = "User"

    [blocks]                                    # in prompt order; those marked * may be left out
    instruction = "..."                         # constant, first
    principles_open = "..."                     # *
    principle = "{number}. {principle}\n"       # *, once for each principle given
    principles_close = "..."                    # *
    conversation_open = "..."                   # *
    turn = "{role}: {content}\n"                # once for each turn
    conversation_close = "..."                  # *
    reference = "{reference}\n"                 # *, when there is a reference answer
    responses_open = "..."                      # *
    response = "{number}: {content}\n"          # once for each response, in the order shown
    responses_close = "..."                     # *
    hint = "Best: Response {number}\n"          # *, when the judge is told which response is the best
    hint_strength = "{strength} better\n"       # *, after it, when it is known how much the best is preferred
    hint_score = "Right score: {score}\n"       # *, instead of both when there is one response
    closing = "\boxed{{{slots}}}"               # opens the model's turn

    [single]                                    # * blocks that differ when there is one response

`{bos}`, `{start_of_turn}` and `{end_of_turn}` are control pieces and may stand anywhere. `{number}` counts from 1;
`{count}` is the number of responses and `{slots}` shows that many scores ("x, x"). `{strength}` is "slightly", "clearly" or
"much". `{{` and `}}` are literal braces.
"""

import importlib.resources
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grm_jax import keys
from grm_jax.errors import UserError

CONTROLS = frozenset({"bos", "start_of_turn", "end_of_turn"})

# Block: the placeholders it must show, and those it may show. A block with a field it must show cannot lose that field.
_BLOCKS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    name: (frozenset(must), frozenset(may))
    for name, must, may in [
        ("instruction", [], []),
        ("principles_open", [], []),
        ("principle", ["principle"], ["number"]),
        ("principles_close", [], []),
        ("conversation_open", [], []),
        ("turn", ["content"], ["role"]),
        ("conversation_close", [], []),
        ("reference", ["reference"], []),
        ("responses_open", [], ["count"]),
        ("response", ["content"], ["number"]),
        ("responses_close", [], ["count"]),
        ("hint", ["number"], []),
        ("hint_strength", ["strength"], []),
        ("hint_score", ["score"], []),
        ("closing", [], ["count", "slots"]),
    ]
}
ANSWERS = ("scores", "best")
_REQUIRED_BLOCKS = ("instruction", "turn", "response", "closing")
_TOKEN = re.compile(r"\{\{|\}\}|\{([A-Za-z_]*)\}|[{}]")


@dataclass(frozen=True)
class Literal:
    """Text of a block that stands as written."""

    text: str


@dataclass(frozen=True)
class Placeholder:
    """A known name in braces: a control piece, a number, or an untrusted field."""

    name: str


Block = tuple[Literal | Placeholder, ...]


@dataclass(frozen=True)
class Template:
    """A parsed template. `digest` changes with any wording (not with comments) and goes into judgements."""

    name: str
    digest: str
    principles_heading: str
    roles: Mapping[str, str]
    blocks: Mapping[str, Block]
    single: Mapping[str, Block]
    answer: str = "scores"

    def block(self, name: str, responses: int) -> Block:
        """Returns a block for that many responses: the variant for one, if there is one, else the general block.

        A block the template leaves out is empty. Raises UserError for one that must show something, such as `reference`:
        leaving it out would drop what the user gave.
        """
        if responses == 1 and name in self.single:
            return self.single[name]
        if name not in self.blocks and _BLOCKS[name][0]:
            raise UserError(
                f"template {self.name}: has no block '{name}', so it cannot show a {name};"
                f" add [blocks] {name} or give no {name}"
            )
        return self.blocks.get(name, ())


def load_template(source: str | Path) -> Template:
    """Loads a template that comes with the package, by its name ("grm", "tiny"), or one from a TOML file.

    Raises UserError, naming file and key, for what is missing, unknown or of the wrong type.
    """
    text = template_text(source)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"template {source}: is not TOML: {error}; correct it there") from None
    return _parse_template(data, str(source))


def template_text(source: str | Path) -> str:
    """Returns the TOML text that `load_template` reads, for keeping a template beside the weights trained with it.

    Raises UserError if it cannot be read.
    """
    packaged = importlib.resources.files("grm_jax.text") / "templates" / f"{source}.toml"
    try:
        if re.fullmatch(r"\w+", str(source)) and packaged.is_file():
            text = packaged.read_text(encoding="utf-8")
        else:
            text = Path(source).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"template {source}: cannot be read ({error.strerror}); give grm, tiny or the path of a TOML file"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"template {source}: is not UTF-8; save it as UTF-8") from None
    return text


def _parse_template(data: dict[str, Any], where: str) -> Template:
    _refuse_unknown(data, {"name", "principles_heading", "answer", "roles", "blocks", "single"}, where)
    tables = {key: _strings(data.get(key, {}), where, key) for key in ("roles", "blocks", "single")}
    for key in ("blocks", "single"):
        _refuse_unknown(tables[key], _BLOCKS, f"{where}: [{key}]")
    for block in _REQUIRED_BLOCKS:
        if block not in tables["blocks"]:
            raise UserError(f"template {where}: [blocks] lacks '{block}'; add it")
    answer = data.get("answer", ANSWERS[0])
    if answer not in ANSWERS:
        raise UserError(
            f"template {where}: 'answer' must be one of {', '.join(ANSWERS)}, not {answer!r}; correct it there"
        )
    return Template(
        name=_string(data, "name", where),
        digest=keys.digest(json.dumps(data, sort_keys=True)).hex()[:16],
        principles_heading=_string(data, "principles_heading", where),
        roles=tables["roles"],
        blocks={name: _parse_block(text, name, f"{where}: [blocks]") for name, text in tables["blocks"].items()},
        single={name: _parse_block(text, name, f"{where}: [single]") for name, text in tables["single"].items()},
        answer=answer,
    )


def _parse_block(text: str, name: str, where: str) -> Block:
    must, may = _BLOCKS[name]
    block = tuple(_merge(_split(text, must | may | CONTROLS, f"{where} {name}")))
    shown = {part.name for part in block if isinstance(part, Placeholder)}
    for placeholder in sorted(must - shown):
        raise UserError(f"template {where} {name}: does not show {{{placeholder}}}; add it")
    return block


def _split(text: str, known: frozenset[str], where: str) -> Iterator[Literal | Placeholder]:
    start = 0
    for match in _TOKEN.finditer(text):
        yield Literal(text[start : match.start()])
        start = match.end()
        token, name = match.group(), match.group(1)
        if token in ("{{", "}}"):
            yield Literal(token[0])
        elif name in known:
            yield Placeholder(name)
        else:
            listed = ", ".join(f"{{{each}}}" for each in sorted(known))
            raise UserError(
                f"template {where}: unknown placeholder {token}; use {listed}, or write {{{{ and }}}} for braces"
            )
    yield Literal(text[start:])


def _merge(parts: Iterable[Literal | Placeholder]) -> Iterator[Literal | Placeholder]:
    """Joins neighbouring literals and drops empty ones."""
    text = ""
    for part in parts:
        if isinstance(part, Literal):
            text += part.text
            continue
        if text:
            yield Literal(text)
            text = ""
        yield part
    if text:
        yield Literal(text)


def _string(data: Mapping[str, Any], key: str, where: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise UserError(f"template {where}: '{key}' must be a string that is not empty; set it")
    return value


def _strings(table: Any, where: str, key: str) -> dict[str, str]:
    if not isinstance(table, dict):
        raise UserError(f"template {where}: '{key}' must be a table; write it as [{key}]")
    for name, value in table.items():
        if not isinstance(value, str):
            raise UserError(f"template {where}: [{key}] {name} must be a string, not {type(value).__name__}; quote it")
    return table


def _refuse_unknown(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    for name in table:
        if name not in known:
            raise UserError(f"template {where}: unknown key '{name}'; use {', '.join(sorted(known))}")
