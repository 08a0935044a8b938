"""What a compiled program sends between chips: its collectives, read from its text, loops counted as often as they run."""

import math
import re
from collections import Counter

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_SIZES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "bf16": 2,
    "f16": 2,
    "s16": 2,
    "u16": 2,
    "f32": 4,
    "s32": 4,
    "u32": 4,
    "s64": 8,
    "u64": 8,
}
_INSTRUCTION = re.compile(rf"= (\(?[\w\[\],{{}}:() /*=]*?\)?) ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b(\w+)\[([\d,]*)\]")
_CALLS = re.compile(r"(?:calls|body|to_apply|branch_computations)=\{?(%[\w.\-]+(?:, ?%[\w.\-]+)*)")
_CONDITION = re.compile(r" while\(.*condition=(%[\w.\-]+)")
_KNOWN = re.compile(r'known_trip_count"?:\{"n":"(\d+)"')
_BOUND = re.compile(r"= s32\[\]\S* constant\((\d+)\)")


def exchanged(text: str) -> dict[str, int]:
    """Bytes a chip receives in one run of a program, by kind of collective.

    An all-reduce counts twice: it is a reduce-scatter and an all-gather. A loop whose number of rounds the compiler does not
    know, as that over the tokens of a critique, counts once.

    Args:
        text: of the optimised program (`compiled.as_text()`).
    """
    computations, entry = _computations(text)
    found = Counter[str]()
    stack: list[tuple[str, int]] = [(entry, 1)]
    while stack:
        name, times = stack.pop()
        for line in computations.get(name, ()):
            match = _INSTRUCTION.search(line)
            if match:
                found[match[2]] += times * _received(match[1], match[2], started=bool(match[3]))
            condition = _CONDITION.search(line)
            rounds = times * (_rounds(line, computations[condition[1]]) if condition else 1)
            if match and match[2] in ("all-reduce", "reduce-scatter"):
                continue  # what they call adds two numbers
            for called in _CALLS.findall(line):
                stack += [(each.strip(), rounds) for each in called.split(",")]
    return {kind: found[kind] for kind in KINDS if found[kind]}


def _rounds(loop: str, condition: list[str]) -> int:
    """How often a loop runs: as the compiler says, or if it goes on while a counter is below a constant; else 1."""
    known = _KNOWN.search(loop)
    if known:
        return int(known[1])
    bounds = [found[1] for line in condition if (found := _BOUND.search(line))]
    root = next(line for line in condition if line.lstrip().startswith("ROOT"))
    return int(bounds[0]) if len(bounds) == 1 and " compare(" in root and "direction=LT" in root else 1


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each computation by its name, and the name of the one that is run."""
    found: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?(%[\w.\-]+) \(.*\{$", line)
        if head:
            name = head[2]
            entry = name if head[1] else entry
            found[name] = []
        elif name:
            found[name].append(line)
    return found, entry


def _received(types: str, kind: str, *, started: bool) -> int:
    """Bytes from the type of an instruction; one that is started has operands and results in a tuple."""
    sizes = [
        _SIZES.get(dtype, 4) * math.prod(int(size) for size in shape.split(",") if size)
        for dtype, shape in _ARRAY.findall(types)
    ]
    if started:
        sizes = sizes[len(sizes) // 2 :] if kind != "collective-permute" else sizes[:1]
    return sum(sizes) * (2 if kind == "all-reduce" else 1)
