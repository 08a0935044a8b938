"""Reading the principles a critique states: for display and statistics, so unreadable ones cost nothing.

Principles stand after a heading such as "Specific Criteria:", on the heading's own line or as a list below it, up to
the next heading: a line with `#`, one wholly in bold, an unlisted "Label:" that does not end in a weight, or one with
the score block. After an empty line only list items count. Clauses of one line are parted by ";", or by "," or "."
after a weight.

Weights are read where they are labelled or close a clause or its label: `(weight 30%)`, `weight: 0.3`, `(3)`, `30%`. A
percentage becomes a fraction (30% is 0.3); any other number stays as written; weights compare within a critique only.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Every repetition is bounded, so that no text makes the search slow.
_NUMBER = r"(\d{1,6}(?:\.\d{1,6})?) ?(%?)"
_LABEL = r"weight(?:ed)?(?: of)? ?[:=]? ?"
_WEIGHT = re.compile(
    rf"[ ,]?[(\[](?:{_LABEL})?{_NUMBER}[)\]](?= ?(?:[:,;.]|$))"  # (weight 30%), (3), at the end of a clause or label
    rf"|[ ,]{{0,2}}\b{_LABEL}{_NUMBER}"  # weight: 0.3
    r"|[ ,:]{0,2}\b(\d{1,6}(?:\.\d{1,6})?) ?(%)(?= ?(?:[:,;.]|$))",  # 30%
    re.ASCII | re.IGNORECASE,
)
_PUNCTUATION = " \t.,;:-–—"
_BULLET = re.compile(r" {0,8}(?:[-+*•]|\d{1,3}[.)])[ \t]")
_LABELLED = re.compile(r"[A-Z][\w ]{0,40}:")
_BOLD = re.compile(r"(?:\*\*|__)[^*_]{1,80}(?:\*\*|__):?")


@dataclass(frozen=True)
class Principle:
    """A criterion as stated; `weight` is a fraction if it was a percentage, else as written, None if unread."""

    text: str
    weight: float | None


def read_principles(text: str, heading: str) -> tuple[Principle, ...]:
    """Returns the principles after the first line that starts with `heading`, bold or `#` aside; () without one."""
    lines = iter(text.splitlines())
    own = next((rest for rest in (_after_heading(line, heading) for line in lines) if rest is not None), None)
    if own is None:
        return ()
    # A list item may run over several lines; any other line holds clauses of its own.
    stated = [[clause] for clause in _clauses(own) if clause.strip()]
    in_list = after_gap = False
    for line in lines:
        plain = _plain(line)
        bullet = _BULLET.match(plain)
        if not plain.strip():
            after_gap = bool(stated)
        elif bullet:
            stated.append([plain[bullet.end() :]])
            in_list, after_gap = True, False
        elif after_gap or _is_heading(line):
            break
        elif in_list:
            stated[-1].append(plain.strip())
        else:
            stated += [[clause] for clause in _clauses(plain) if clause.strip()]
    principles = (_principle(" ".join(parts)) for parts in stated)
    return tuple(principle for principle in principles if principle.text)


def _after_heading(line: str, heading: str) -> str | None:
    plain = _plain(line).lstrip("# \t")
    folded, wanted = plain.casefold(), heading.casefold()
    if folded.startswith(wanted):
        return plain[len(heading) :]
    return "" if folded.rstrip() == wanted.rstrip(": ") else None


def _is_heading(line: str) -> bool:
    bare = line.strip()
    if bare.startswith("#") or r"\boxed{" in bare:
        return True
    plain = _plain(line).strip()
    ends_in_weight = any(match.end() >= len(plain.rstrip(" .,;")) for match in _WEIGHT.finditer(plain))
    return not ends_in_weight and bool(_BOLD.fullmatch(bare) or _LABELLED.match(plain))


def _clauses(line: str) -> Iterator[str]:
    for clause in line.split(";"):
        start = 0
        for match in _WEIGHT.finditer(clause):
            if clause[match.end() : match.end() + 1] in (",", "."):
                yield clause[start : match.end()]
                start = match.end() + 1
        yield clause[start:]


def _principle(clause: str) -> Principle:
    clause = clause.strip(_PUNCTUATION)
    match = _WEIGHT.search(clause)
    if not match:
        return Principle(clause, None)
    number, percent = (group for group in match.groups() if group is not None)
    weight = float(number) / 100 if percent else float(number)
    return Principle((clause[: match.start()] + clause[match.end() :]).strip(_PUNCTUATION), weight)


def _plain(line: str) -> str:
    return line.replace("**", "").replace("__", "")
