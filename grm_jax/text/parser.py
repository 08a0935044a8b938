r"""From a generated critique to its scores, or to the reason why there are none.

Only generated text is given here, never the prompt. The rules, in order:

* A generation that was cut off is `truncated`, whatever it holds: its last block may not be its last word.
* A score block is `\boxed{...}` with balanced braces; inside another block it is a part of that. A block is *quoted*
  if it begins inside a code fence, inline code, or a line that opens with `>`. The last block that is not quoted
  counts, and text may follow.
* `no_block`: there is no block. `ambiguous`: there are quoted blocks only; or a `\boxed{` that is never closed stands
  after the last block or on its line; or its line holds another block that says something else.
* The block's fields are parted by commas, and ASCII space around them does not matter. A field is a canonical ASCII
  integer: no leading zero or plus, no fraction, bracket, other script or other minus. `not_integer`: a field is not one
  (an empty field, as after a trailing comma, too). `wrong_count`: there are not n. `out_of_range`: a field is outside
  1..10. The first of these three that holds is the outcome; otherwise it is `ok`.
* A verdict (LLM-as-a-Judge) is a block with the place of the best response instead, counted from 1: one field, an integer in 1..n.
  The outcomes are the same, with 1 for n and n for 10. As scores, it gives the response named the highest, all others the lowest.

Time is linear in the text, and bounded: of a text over `LONGEST` characters, more than an 8,192-token window yields,
scores are read from the last `LONGEST` (code that opened before is not known there) and principles from the first.
"""

import enum
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from grm_jax.text.principles import Principle, read_principles

__all__ = ["HIGHEST", "LONGEST", "LOWEST", "Critique", "Outcome", "Principle", "parse_critique"]

LONGEST = 2**18

LOWEST, HIGHEST = 1, 10
_BOX = r"\boxed{"
_BRACE = re.compile(r"\\boxed\{|\{|\}")
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_QUOTE = re.compile(r" {0,3}>")
_BACKTICKS = re.compile(r"`+")

Span = tuple[int, int]


class Outcome(enum.StrEnum):
    """What became of one critique; only `ok` carries scores."""

    OK = "ok"
    NO_BLOCK = "no_block"
    WRONG_COUNT = "wrong_count"
    OUT_OF_RANGE = "out_of_range"
    NOT_INTEGER = "not_integer"
    AMBIGUOUS = "ambiguous"
    TRUNCATED = "truncated"


@dataclass(frozen=True)
class Critique:
    """A critique as read: n `scores`, in the order the responses were shown, if and only if the outcome is ok.

    `block` is the place (start, stop) in the text of what stands between the braces of the block that was read; None if not ok.
    """

    outcome: Outcome
    scores: tuple[int, ...] | None
    principles: tuple[Principle, ...]
    block: Span | None = None


def parse_critique(text: str, n: int, *, truncated: bool, principles_heading: str, verdict: bool = False) -> Critique:
    """Reads a generated critique of n responses by the rules above.

    Args:
        text: what the model wrote.
        n: how many responses it was shown.
        truncated: it ran into its length limit and did not stop of itself.
        principles_heading: the template's.
        verdict: the block names the best response; else it scores all.
    """
    principles = read_principles(text[:LONGEST], principles_heading)
    end = _end(text)
    block = Outcome.TRUNCATED if truncated else _last_block(end)
    if isinstance(block, Outcome):
        return Critique(block, None, principles)
    found = (_verdict if verdict else _scores)(_fields(end, block), n)
    if isinstance(found, Outcome):
        return Critique(found, None, principles)
    before = len(text) - len(end)
    return Critique(Outcome.OK, found, principles, (before + block[0] + len(_BOX), before + block[1] - 1))


def _last_block(text: str) -> Span | Outcome:
    plain, quoted = _regions(text)
    blocks, unclosed = _blocks(text, plain)
    if not blocks:
        quotes = any(_blocks(text, [region])[0] for region in quoted)
        return Outcome.AMBIGUOUS if quotes else Outcome.NO_BLOCK
    last = blocks[-1]
    start, _ = last
    fields = _fields(text, last)
    line_start = _line_start(text, start)
    neighbours = itertools.takewhile(lambda block: block[1] > line_start, reversed(blocks[:-1]))
    if unclosed >= line_start or any(_fields(text, block) != fields for block in neighbours):
        return Outcome.AMBIGUOUS
    return last


def _scores(fields: list[str], n: int) -> tuple[int, ...] | Outcome:
    return _integers(fields, n, LOWEST, HIGHEST)


def _verdict(fields: list[str], n: int) -> tuple[int, ...] | Outcome:
    best = _integers(fields, 1, 1, n)
    if isinstance(best, Outcome):
        return best
    return tuple(HIGHEST if place == best[0] else LOWEST for place in range(1, n + 1))


def _integers(fields: list[str], count: int, lowest: int, highest: int) -> tuple[int, ...] | Outcome:
    if not all(map(_INTEGER.fullmatch, fields)):
        return Outcome.NOT_INTEGER
    if len(fields) != count:
        return Outcome.WRONG_COUNT
    # Only what is short enough becomes a number: the interpreter refuses to read very long ones.
    numbers = tuple(int(each) for each in fields if len(each) <= len(str(highest)))
    if len(numbers) < count or not all(lowest <= number <= highest for number in numbers):
        return Outcome.OUT_OF_RANGE
    return numbers


def _end(text: str) -> str:
    """Returns the last `LONGEST` characters, without the rest of a `>` line whose mark would be cut off."""
    cut = max(0, len(text) - LONGEST)
    if cut and _QUOTE.match(text, _line_start(text, cut)):
        cut = next(_LINE.finditer(text, cut)).end()
    return text[cut:]


def _line_start(text: str, place: int) -> int:
    return max(text.rfind(end, 0, place) for end in "\r\n") + 1


def _fields(text: str, block: Span) -> list[str]:
    start, stop = block
    return [each.strip(" \t\r\n") for each in text[start + len(_BOX) : stop - 1].split(",")]


def _blocks(text: str, regions: list[Span]) -> tuple[list[Span], int]:
    r"""Returns the outermost closed blocks of the regions in order, and where the last unclosed `\boxed{` is, or -1."""
    stack: list[tuple[int, bool]] = []
    blocks: list[Span] = []
    for match in itertools.chain.from_iterable(_BRACE.finditer(text, *region) for region in regions):
        if match.group() != "}":
            stack.append((match.start(), match.group() == _BOX))
        elif stack:
            start, is_box = stack.pop()
            if is_box:
                while blocks and blocks[-1][0] > start:
                    blocks.pop()
                blocks.append((start, match.end()))
    return blocks, max((start for start, is_box in stack if is_box), default=-1)


def _regions(text: str) -> tuple[list[Span], list[Span]]:
    """Parts text into (plain, quoted) regions."""
    plain: list[Span] = []
    quoted: list[Span] = []
    fence, fence_start = "", 0
    for line in _LINE.finditer(text):
        start, stop = line.span()
        mark = _FENCE.match(text, start, stop)
        if fence:
            # A fence closes with a run of its own character, as long at least, alone on its line.
            if mark and mark[1].startswith(fence) and not text[mark.end() : stop].strip():
                quoted.append((fence_start, stop))
                fence = ""
        elif mark and not (mark[1][0] == "`" and "`" in text[mark.end() : stop]):
            fence, fence_start = mark[1], start
        elif _QUOTE.match(text, start, stop):
            quoted.append((start, stop))
        elif text.find("`", start, stop) < 0:
            plain.append((start, stop))
        else:
            _part_inline(text, (start, stop), plain, quoted)
    if fence:
        quoted.append((fence_start, len(text)))
    return plain, quoted


def _part_inline(text: str, line: Span, plain: list[Span], quoted: list[Span]) -> None:
    """Parts a line at its inline code: from a run of backticks to the next run of the same length."""
    start, stop = line
    for opened, closed in _inline_code(text, line):
        plain.append((start, opened))
        quoted.append((opened, closed))
        start = closed
    plain.append((start, stop))


def _inline_code(text: str, line: Span) -> Iterator[Span]:
    runs = [match.span() for match in _BACKTICKS.finditer(text, *line)]
    partner: dict[int, int] = {}
    latest: dict[int, int] = {}
    for place in reversed(range(len(runs))):
        length = runs[place][1] - runs[place][0]
        if length in latest:
            partner[place] = latest[length]
        latest[length] = place
    place = 0
    while place < len(runs):
        if place in partner:
            yield runs[place][0], runs[partner[place]][1]
            place = partner[place]
        place += 1
