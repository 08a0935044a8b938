"""From files or the hub to the cases of a benchmark, with its item counts held as a law."""

import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grm_jax.benchmarks.benchmark import Benchmark, Case
from grm_jax.benchmarks.realmistake import PASSWORD, REALMISTAKE
from grm_jax.benchmarks.registry import BENCHMARKS
from grm_jax.data import fields
from grm_jax.data.jsonl import parse_line
from grm_jax.data.sources import open_source
from grm_jax.errors import UserError
from grm_jax.judge.run_store import item_facts
from grm_jax.keys import digest

_SUFFIXES = (".json", ".jsonl", ".jsonl.gz", ".parquet")
_MAX_ARCHIVE = 1 << 28  # bytes unpacked; ReaLMistake has a few million

Placed = tuple[str, str, Any]
"""A row with its place, for messages, and the part of the benchmark it is of."""


@dataclass(frozen=True)
class Data:
    """The cases of a benchmark.

    Attributes:
        cases: in the order of the data, each with an id of its own.
        rows: how many rows each subset has.
        absent: what the benchmark has and this has not: "SUBSET FOUND of EXPECTED rows" each; empty when all is there.
        digest: of everything that is judged or counted: another version of the data has another.
    """

    cases: tuple[Case, ...]
    rows: Mapping[str, int]
    absent: tuple[str, ...]
    digest: str


def load(benchmark: Benchmark, spec: str | None, *, revision: str | None = None, partial: bool = False) -> Data:
    """Reads a benchmark.

    Args:
        benchmark: whose data is expected.
        spec: a .json, .jsonl, .jsonl.gz or .parquet file, a folder of such, ReaLMistake's data.zip, or
            hf:ID@REVISION[:SPLIT]; None for the benchmark's own sources.
        revision: commit of the benchmark's data set on the hub, in place of the pinned one; only without a spec.
        partial: allow that rows are absent.

    Raises:
        UserError: other data than the benchmark's, a malformed row, or a subset with other than its number of rows.
    """
    source = spec or f"the data of {benchmark.name}"
    rows: Counter[str] = Counter()
    names: Counter[str] = Counter()
    seen: set[tuple[str, ...]] = set()
    twice = None
    cases = []
    for where, part, row in _rows(benchmark, spec, revision):
        _check_columns(benchmark, row, where)
        subset, found = benchmark.read(row, where, part)
        rows[subset] += 1
        for case in found:
            content = (case.id, *(f"{item.label} {item_facts(item).digest}" for item in case.items))
            if content in seen:
                twice = twice or f"{where}: stands twice, as {case.id}"
            seen.add(content)
            names[case.id] += 1
            cases.append(case if names[case.id] == 1 else _renamed(case, f"{case.id}#{names[case.id]}"))
    absent = check_counts(benchmark, rows, source, partial=partial)
    if twice:
        raise UserError(f"{twice}; give each row once")
    if not cases:
        raise UserError(f"{source}: holds nothing to judge; check that it is the right file")
    parts = sorted(
        f"{case.group} {item.id} {item.label} {item_facts(item).digest}" for case in cases for item in case.items
    )
    return Data(tuple(cases), dict(rows), absent, digest(*parts).hex()[:16])


def check_counts(benchmark: Benchmark, rows: Mapping[str, int], source: str, *, partial: bool) -> tuple[str, ...]:
    """Holds the rows of each subset against the benchmark's; returns those that are absent, which `partial` allows.

    Raises:
        UserError: a subset has more rows than the benchmark, or, unless `partial`, fewer.
    """
    for subset, count in benchmark.counts.items():
        if rows.get(subset, 0) > count:
            problem = f"{subset} has {rows[subset]:,} rows where {benchmark.name} has {count:,}"
            raise UserError(f"{source}: {problem}; versions are mixed or rows stand twice, give one version")
    absent = tuple(
        f"{subset} {rows.get(subset, 0):,} of {count:,} rows"
        for subset, count in benchmark.counts.items()
        if rows.get(subset, 0) < count
    )
    if absent and not partial:
        some = ", ".join(absent[:3]) + (f" and {len(absent) - 3} subsets more" if len(absent) > 3 else "")
        raise UserError(f"{source}: is not all of {benchmark.name}: {some}; give all of it, or --partial to do without")
    return absent


def _rows(benchmark: Benchmark, spec: str | None, revision: str | None) -> Iterator[Placed]:
    if spec is None:
        yield from _own_rows(benchmark, revision)
    elif revision is not None:
        raise UserError(
            f"--revision {revision}: is of the hub's own data set, and --data is given; leave out one of them"
        )
    elif spec.startswith("hf:"):
        if not Path(spec.removeprefix("hf:").partition(":")[0]).exists() and not re.search(
            r"@[0-9a-f]{7,40}(:|$)", spec
        ):
            raise UserError(
                f"{spec}: names no revision; give hf:ID@COMMIT:SPLIT, so that the figures say what they are of"
            )
        yield from _source_rows(spec, _part(benchmark, spec.removeprefix("hf:").partition("@")[0], spec))
    elif Path(spec).is_dir():
        every = Path(spec).rglob("*")
        files = sorted(path for path in every if path.name.endswith(_SUFFIXES) and not _is_hidden(path, spec))
        if not files:
            raise UserError(f"{spec}: is a folder without {', '.join(_SUFFIXES)} files; give the folder of the data")
        for path in files:
            yield from _source_rows(str(path), _part(benchmark, path.as_posix(), str(path)))
    elif benchmark is REALMISTAKE and spec.endswith(".zip"):
        yield from _archive_rows(benchmark, spec)
    else:
        yield from _source_rows(spec, _part(benchmark, Path(spec).as_posix(), spec))


def _own_rows(benchmark: Benchmark, revision: str | None) -> Iterator[Placed]:
    if benchmark.own:
        for number, row in enumerate(benchmark.own()):
            yield f"{benchmark.name} row {number}", "", row
    elif not benchmark.hub:
        raise UserError(
            f"{benchmark.name}: its data is not read from the hub; give --data PATH, see docs/benchmarks.md"
        )
    for part, spec in benchmark.hub.items():
        yield from _source_rows(pinned(benchmark, spec, revision), part)


def pinned(benchmark: Benchmark, spec: str, revision: str | None) -> str:
    """Returns a spec of the benchmark's hub data with its revision: the user's, else the one that is pinned.

    Raises:
        UserError: there is neither, the user's is no commit, or it would be one for several data sets.
    """
    name, _, split = spec.rpartition(":")
    name, _, commit = name.partition("@")
    if revision is not None and len(benchmark.hub) > 1:
        raise UserError(
            f"--revision {revision}: {benchmark.name} is several data sets, each with its own; leave it out"
        )
    if revision is not None and not re.fullmatch("[0-9a-f]{40}", revision):
        raise UserError(f"--revision {revision}: is no commit; give all 40 hexadecimal digits of one")
    if not (revision or commit):
        raise UserError(
            f"{benchmark.name}: no revision of {name} is pinned, as none could be verified; give --revision COMMIT of the data "
            "set's page on the hub, or --data PATH"
        )
    return f"{name}@{revision or commit}:{split}"


def described(benchmark: Benchmark, spec: str | None, revision: str | None) -> str:
    """Names where `load` reads the data: the user's spec, or the benchmark's own sources with their revisions."""
    if spec is not None:
        return spec
    return ", ".join(pinned(benchmark, each, revision) for each in benchmark.hub.values()) or benchmark.name


def _source_rows(spec: str, part: str) -> Iterator[Placed]:
    source = open_source(spec)
    for index in range(len(source)):
        yield source.where(index), part, source[index]


def _part(benchmark: Benchmark, path: str, spec: str) -> str:
    part = benchmark.part_of(path)
    if part is None:
        parts = ", ".join(benchmark.counts)
        raise UserError(
            f"{spec}: its path does not tell what of {benchmark.name} it holds; name it as published: {parts}"
        )
    return part


def _is_hidden(path: Path, folder: str) -> bool:
    """Tells whether a file, or a folder it stands in below `folder`, is hidden: tools keep notes of their own there."""
    return any(name.startswith(".") for name in path.relative_to(folder).parts)


def _archive_rows(benchmark: Benchmark, spec: str) -> Iterator[Placed]:
    """Rows of an encrypted archive, read in memory: no name in it becomes a path."""
    try:
        with zipfile.ZipFile(spec) as archive:
            members = [entry for entry in archive.infolist() if re.fullmatch(r"(?!__MACOSX/).*\.jsonl", entry.filename)]
            if sum(entry.file_size for entry in members) > _MAX_ARCHIVE:
                raise UserError(f"{spec}: unpacks to more than {_MAX_ARCHIVE:,} bytes; give the archive as published")
            if not members:
                raise UserError(f"{spec}: holds no .jsonl files; give the archive as published")
            for entry in members:
                place = f"{spec}/{entry.filename}"
                part = _part(benchmark, entry.filename, place)
                for number, line in enumerate(archive.read(entry, pwd=PASSWORD).splitlines(), 1):
                    if line.strip():
                        yield f"{place}:{number}", part, parse_line(line, f"{place}:{number}")
    except FileNotFoundError:
        raise UserError(f"{spec}: no such file; check the path") from None
    # zipfile's words for: cannot be read, is no archive, another password, another compression, ends too soon.
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise UserError(f"{spec}: is no readable archive ({error}); fetch it again") from None


def _check_columns(benchmark: Benchmark, row: Any, where: str) -> None:
    """Refuses a row of something else, and says whose it looks like: it has all columns of another, and more of them."""
    row = fields.read_object(row, where, "row")
    missing = [column for column in benchmark.columns if column not in row]
    fits = [other for other in BENCHMARKS.values() if all(column in row for column in other.columns)]
    likely = max(fits, key=lambda other: len(other.columns), default=benchmark)
    if missing or len(likely.columns) > len(benchmark.columns):
        hint = (
            f"it looks like one of {likely.name}" if likely.columns != benchmark.columns else f"it has no {missing[0]}"
        )
        raise UserError(f"{where}: is no row of {benchmark.name}: {hint}; give {benchmark.name}'s own data")


def _renamed(case: Case, name: str) -> Case:
    items = tuple(replace(item, id=name + item.id.removeprefix(case.id)) for item in case.items)
    return replace(case, id=name, items=items)
