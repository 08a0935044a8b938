"""`eval.json` of a run folder: an evaluation as it was written, read again."""

from pathlib import Path
from typing import Any

from grm_jax.benchmarks.evaluation import Evaluation, Row
from grm_jax.benchmarks.figures import Interval
from grm_jax.benchmarks.policies import Policies
from grm_jax.data import fields
from grm_jax.data.jsonl import parse_line

RECORD = "eval.json"
_REMEDY = "run `grm eval` on the folder again"


def read_record(folder: str | Path) -> tuple[Evaluation, dict[str, Any]] | None:
    """Reads the evaluation of a run folder, and the JSON object it was read from; None where there is none.

    Raises:
        UserError: "FILE: field: what is wrong; what to do".
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        return None
    where = str(path)
    obj = fields.read_object(parse_line(path.read_bytes(), where), where, "evaluation")
    names = tuple(Evaluation.__dataclass_fields__)
    fields.check_keys(obj, names, names, where, _REMEDY)
    rows = tuple(_row(row, where) for row in fields.read_array(obj["rows"], where, "rows"))
    if not rows:
        fields.fail(where, "rows", "is empty", _REMEDY)
    published = fields.read_object(obj["published"], where, "published")
    outcomes = fields.read_object(obj["outcomes"], where, "outcomes")
    texts: Any = {name: fields.read_text(obj[name], where, name) for name in ("benchmark", "title", "data")}
    counts: Any = {
        name: fields.read_integer(obj[name], where, name, 0, 2**63) for name in ("cases", "cases_there", "items")
    }
    evaluation = Evaluation(
        **texts,
        **counts,
        policies=_policies(obj["policies"], where),
        protocols=fields.read_texts(obj["protocols"], where, "protocols"),
        published={name: _policies(each, where) for name, each in published.items()},
        run=fields.read_object(obj["run"], where, "run"),
        absent=fields.read_texts(obj["absent"], where, "absent"),
        seed=fields.read_integer(obj["seed"], where, "seed", -(2**64), 2**64),
        outcomes={name: fields.read_integer(n, where, name, 0, 2**63) for name, n in outcomes.items()},
        rows=rows,
    )
    return evaluation, obj


def _row(value: Any, where: str) -> Row:
    row = fields.read_object(value, where, "rows")
    names = tuple(Row.__dataclass_fields__)
    fields.check_keys(row, names, names, where, _REMEDY)
    figures = fields.read_object(row["figures"], where, "figures")
    rates = {name: fields.read_optional(fields.read_number, row[name], where, name) for name in ("tied", "first_place")}
    return Row(
        k=fields.read_integer(row["k"], where, "k", 1, 2**31),
        figures={name: None if each is None else _interval(each, where, name) for name, each in figures.items()},
        failed=fields.read_number(row["failed"], where, "failed"),
        **rates,
    )


def _interval(value: Any, where: str, name: str) -> Interval:
    ends = fields.read_object(value, where, name)
    names = ("mean", "low", "high")
    fields.check_keys(ends, names, names, where, _REMEDY)
    return Interval(*(fields.read_number(ends[end], where, f"{name}.{end}") for end in names))


def _policies(value: Any, where: str) -> Policies:
    policies = fields.read_object(value, where, "policies")
    fields.check_keys(policies, tuple(Policies.__dataclass_fields__), ("ties", "failures", "vote"), where, _REMEDY)
    return Policies(**policies)
