"""Data of every benchmark, in its documented schema: read whole from every form, and refused when it is something else."""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from benchmark_rows import encrypted_zip, rewardbench, rm_bench, rows, write

import grm_jax.benchmarks.loading as loading
from grm_jax.benchmarks.loading import described, load
from grm_jax.benchmarks.registry import BENCHMARKS
from grm_jax.data.sources import open_source
from grm_jax.errors import UserError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
NAMES = sorted(set(BENCHMARKS) - {"arena"})
CASES = {
    "ppe_preference": 8_020,
    "ppe_correctness": 2_555 * 3,
}  # those of the made-up rows: ties left out, three pairs a row
needs_data = pytest.mark.skipif(not SHARED.exists(), reason="shared/data is not beside the checkout")


def refusal(name, data, **options):
    with pytest.raises(UserError) as refused:
        load(BENCHMARKS[name], str(data), **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_benchmark_is_read_with_every_count(name, tmp_path):
    benchmark = BENCHMARKS[name]
    data = load(benchmark, str(write(tmp_path, name)))
    assert data.rows == benchmark.counts and data.absent == ()
    total = sum(benchmark.counts.values())
    assert len(data.cases) == CASES.get(name, total)
    assert {"rewardbench": 2_985, "rewardbench2": 1_865, "rmb": 20_917, "realmistake": 900, "judgebench": 350,
            "judgebench_claude": 270, "rm_bench": 1_327, "ppe_preference": 16_038}.get(name, total) == total  # fmt: skip
    ids = [item.id for case in data.cases for item in case.items]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", NAMES)
def test_one_row_less_is_refused_unless_partial_is_asked_and_then_it_is_named(name, tmp_path):
    path = write(tmp_path, name)
    file = sorted(path.rglob("*.jsonl"))[0] if path.is_dir() else path
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[1:]))
    assert f"is not all of {name}: " in refusal(name, path)
    (absent,) = load(BENCHMARKS[name], str(path), partial=True).absent
    assert absent.endswith(" rows") and " of " in absent


@pytest.mark.parametrize("name", NAMES)
def test_a_row_more_than_a_subset_has_is_refused_even_when_partial(name, tmp_path):
    path = write(tmp_path, name)
    file = sorted(path.rglob("*.jsonl"))[0] if path.is_dir() else path
    with file.open("a") as out:
        out.write(file.read_text().splitlines()[0] + "\n")
    assert "versions are mixed or rows stand twice" in refusal(name, path, partial=True)


def test_a_row_that_stands_twice_in_the_place_of_another_is_refused(tmp_path):
    path = write(tmp_path, "rewardbench")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[1], *lines[1:]]))  # the counts are right
    assert f"{path}:2: stands twice, as Chat/" in refusal("rewardbench", path)


@pytest.mark.parametrize("name", ["rewardbench", "judgebench"])
def test_an_empty_file_is_refused(name, tmp_path):
    for file, content in (("rows.jsonl", ""), ("rows.json", "[]"), ("lines.jsonl", "\n\n")):
        (tmp_path / file).write_text(content)
        assert f"{tmp_path / file}: holds no rows; check that it is the right file" in refusal(name, tmp_path / file)
    (tmp_path / "folder").mkdir()
    assert "is a folder without .json" in refusal(name, tmp_path / "folder")
    (tmp_path / "folder" / "rows.jsonl").write_text("")
    assert "holds no rows" in refusal(name, tmp_path / "folder", partial=True)


def test_two_versions_in_one_folder_are_refused(tmp_path):
    """The same questions once more, with other texts: the ids are known, the rows are not the same."""
    (tmp_path / "both").mkdir()
    path = write(tmp_path / "both", "judgebench")
    (tmp_path / "both" / "older.jsonl").write_text(path.read_text().replace('"question": "', '"question": "older '))
    assert "versions are mixed or rows stand twice, give one version" in refusal("judgebench", tmp_path / "both")


def test_a_missing_subset_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for subset, row in rows("rewardbench") if subset != "donotanswer"))
    assert "is not all of rewardbench: donotanswer 0 of 136 rows; give all of it, or --partial" in refusal(
        "rewardbench", path
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("other", NAMES)
def test_another_benchmarks_file_is_refused_by_name(name, other, tmp_path):
    if BENCHMARKS[name].columns == BENCHMARKS[other].columns:
        return  # two ways to judge one benchmark
    _, row = next(rows(other))
    part = next(iter(BENCHMARKS[name].counts))  # the path looks right, the rows are not
    path = tmp_path / f"{part}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(row) + "\n")
    twins = [each for each in NAMES if BENCHMARKS[each].columns == BENCHMARKS[other].columns]
    assert any(f"{path}:1: is no row of {name}: it looks like one of {twin};" in refusal(name, path) for twin in twins)


def test_the_other_split_of_judgebench_is_refused(tmp_path):
    assert "is not of the claude split" in refusal("judgebench_claude", write(tmp_path, "judgebench"))


@pytest.mark.parametrize("form", ["json", "parquet", "folder of parquet", "jsonl.gz"])
def test_every_form_gives_the_same_cases(form, tmp_path):
    path = write(tmp_path, "rewardbench2", 2)
    given = [row for _, row in rows("rewardbench2", 2)]
    if form == "json":
        other = tmp_path / "rows.json"
        other.write_text(json.dumps(given))
    elif form == "jsonl.gz":
        other = tmp_path / "rows.jsonl.gz"
        other.write_bytes(gzip.compress(path.read_bytes()))
    else:
        other = tmp_path / "rows" / "part.parquet"
        other.parent.mkdir()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(given), other)
        other = other.parent if form.startswith("folder") else other
    benchmark = BENCHMARKS["rewardbench2"]
    assert load(benchmark, str(other), partial=True) == load(benchmark, str(path), partial=True)


def test_a_local_copy_of_a_hub_data_set_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    given = [row for _, row in rows("rewardbench", 1)]
    datasets.Dataset.from_list(given).save_to_disk(tmp_path / "set")
    path = write(tmp_path, "rewardbench", 1)
    benchmark = BENCHMARKS["rewardbench"]
    assert (
        load(benchmark, f"hf:{tmp_path / 'set'}", partial=True).digest
        == load(benchmark, str(path), partial=True).digest
    )


def test_the_hub_is_asked_for_pinned_revisions_only(monkeypatch):
    asked = []

    class Asked(Exception):
        pass

    def open_source(spec):
        asked.append(spec)
        raise Asked

    monkeypatch.setattr(loading, "open_source", open_source)
    for name in NAMES:
        benchmark = BENCHMARKS[name]
        if not benchmark.hub:
            with pytest.raises(UserError, match="its data is not read from the hub; give --data PATH"):
                load(benchmark, None)
        elif all("@" in spec for spec in benchmark.hub.values()):
            assert all(len(spec.partition("@")[2].partition(":")[0]) == 40 for spec in benchmark.hub.values())
            assert set(benchmark.hub) in ({""}, set(benchmark.counts))
            with pytest.raises(Asked):
                load(benchmark, None)
        else:
            with pytest.raises(
                UserError, match=r"no revision of hf:.* is pinned, as none could be verified; give --revision"
            ):
                load(benchmark, None)
        assert "names no revision" in refusal(name, "hf:owner/set:test")
        if name not in ("ppe_correctness", "realmistake"):  # there the id has to name the part
            with pytest.raises(Asked):
                load(benchmark, "hf:owner/set@0123abc:test")
    assert asked[0].startswith("hf:") and all("@" in spec for spec in asked)


def test_a_revision_of_the_users_takes_the_place_of_the_pinned_one(monkeypatch, tmp_path):
    asked = []
    path = write(tmp_path, "rewardbench", 1)
    monkeypatch.setattr(loading, "open_source", lambda spec: asked.append(spec) or open_source(str(path)))
    load(BENCHMARKS["rewardbench"], None, revision="ab" * 20, partial=True)
    load(BENCHMARKS["rewardbench"], None, partial=True)
    assert asked[0] == f"hf:allenai/reward-bench@{'ab' * 20}:filtered"
    assert asked[1] == "hf:allenai/reward-bench@168d848cdbbea9764fae4a544dc9ca1e6cca4931:filtered"
    path = write(tmp_path, "judgebench", 1)
    load(BENCHMARKS["judgebench"], None, revision="cd" * 20, partial=True)
    assert (
        asked[2] == f"hf:ScalerLab/JudgeBench@{'cd' * 20}:gpt" == described(BENCHMARKS["judgebench"], None, "cd" * 20)
    )
    assert described(BENCHMARKS["rewardbench"], None, None) == asked[1]
    assert described(BENCHMARKS["judgebench"], "gpt.jsonl", None) == "gpt.jsonl"
    assert described(BENCHMARKS["arena"], None, None) == "arena"
    for name, spec, revision, message in (
        ("rewardbench", None, "main", "--revision main: is no commit; give all 40 hexadecimal digits"),
        ("rewardbench", None, "abcdef0", "--revision abcdef0: is no commit"),
        ("ppe_correctness", None, "ab" * 20, "is several data sets, each with its own; leave it out"),
        ("rewardbench", str(path), "ab" * 20, "--data is given; leave out one of them"),
    ):
        with pytest.raises(UserError, match=message):
            load(BENCHMARKS[name], spec, revision=revision)


def test_nothing_heavy_is_imported_before_it_is_used():
    names = ("benchmarks.loading", "benchmarks.evaluation", "benchmarks.table")
    code = "\n".join([*(f"import grm_jax.{name}" for name in names), "import sys; print(*sys.modules)"])
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"jax", "datasets", "pyarrow", "transformers", "tensorflow_datasets"} & set(loaded)


def test_the_encrypted_archive_is_read_as_its_folder_is(tmp_path):
    folder = write(tmp_path, "realmistake")
    members = {f"data/{path.relative_to(folder)}": path.read_bytes() for path in sorted(folder.rglob("*.jsonl"))}
    archive = tmp_path / "data.zip"
    archive.write_bytes(encrypted_zip(members))
    benchmark = BENCHMARKS["realmistake"]
    data = load(benchmark, str(archive))
    assert data == load(benchmark, str(folder))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.zip", "realmistake"]  # nothing is unpacked
    (folder / ".cache").mkdir()
    (folder / ".cache" / "notes.json").write_text("{}")
    archive.write_bytes(encrypted_zip({**members, "__MACOSX/data/._x.jsonl": b"\0"}))
    assert data == load(benchmark, str(archive)) == load(benchmark, str(folder))

    archive.write_bytes(encrypted_zip(members, b"another"))
    assert "is no readable archive" in refusal("realmistake", archive)
    archive.write_bytes(b"PK")
    assert "is no readable archive" in refusal("realmistake", archive)
    archive.write_bytes(encrypted_zip({"../../etc/answers.jsonl": b"{}\n"}))
    assert "its path does not tell what of realmistake it holds" in refusal("realmistake", archive)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("rewardbench", {"subset": "chatty"}, "subset: 'chatty' is not known"),
        ("rewardbench", {"chosen": ["good"]}, "chosen: must be a string, found an array"),
        ("rewardbench2", {"num_correct": 2}, "num_correct: is 2 with 1 chosen"),
        ("rewardbench2", {"rejected": ["w"]}, "rejected: 1 beside 1 chosen"),
        ("ppe_preference", {"winner": "model_c"}, "winner: 'model_c' is not known"),
        ("ppe_correctness", {"scores": [True]}, "scores: must be 32 booleans"),
        ("ppe_correctness", {"sampled_conflict_pairs": [[0, 2]]}, "[0, 2] is no right and a wrong response"),
        ("ppe_correctness", {"sampled_conflict_pairs": [[0, 32]]}, "32 is out of range"),
        ("rmb", {"category_path": "Pairwise_set/Honesty/S1"}, "category_path: 'Pairwise/Honesty' is not known"),
        ("rmb", {"chosen": {"llm_name": "m"}}, "chosen: answer: missing"),
        ("realmistake", {"error_label": "maybe"}, "error_label: 'maybe' is not known"),
        ("judgebench", {"label": "A=B"}, "label: 'A=B' is not known"),
        ("judgebench", {"source": "mmlu"}, "source: 'mmlu' is not known"),
        ("rm_bench", {"chosen": ["one"]}, "chosen, rejected: must be 3 each"),
        ("rm_bench", {"domain": "law"}, "domain: 'law' is not known"),
    ],
)  # fmt: skip
def test_a_malformed_row_is_named_by_file_line_and_field(name, change, message, tmp_path):
    path = write(tmp_path, name, 1)
    file = sorted(path.rglob("*.jsonl"))[-1] if path.is_dir() else path
    first, *rest = file.read_text().splitlines(keepends=True)
    file.write_text(json.dumps(json.loads(first) | change) + "\n" + "".join(rest))
    refused = refusal(name, path, partial=True)
    assert refused.startswith(f"{file}:1: ") and message in refused


def test_empty_and_absent_data_is_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    assert "holds no rows" in refusal("rewardbench", tmp_path / "empty.jsonl")
    (tmp_path / "folder").mkdir()
    assert "is a folder without" in refusal("rewardbench", tmp_path / "folder")
    assert "no such file" in refusal("rewardbench", tmp_path / "none.jsonl")
    (tmp_path / "answers.jsonl").write_text("{}\n")
    assert "its path does not tell what of ppe_correctness it holds" in refusal(
        "ppe_correctness", tmp_path / "answers.jsonl"
    )


def test_rm_bench_knows_a_domain_by_its_file_where_rows_do_not_name_it(tmp_path):
    for subset in ("chat", "safety-refuse"):
        row = {key: value for key, value in rm_bench(subset, 0).items() if key != "domain"}
        (tmp_path / f"{subset}_filtered.json").write_text(json.dumps([row]))
    data = load(BENCHMARKS["rm_bench"], str(tmp_path), partial=True)
    assert data.rows == {"chat": 1, "safety-refuse": 1}
    assert [case.group for case in data.cases] == ["chat", "safety"]
    shutil.move(tmp_path / "chat_filtered.json", tmp_path / "mine.json")
    assert "domain" in refusal("rm_bench", tmp_path / "mine.json", partial=True)


def test_rows_of_one_name_are_cases_of_their_own(tmp_path):
    path = tmp_path / "rows.jsonl"
    twice = [rewardbench("donotanswer", 7) | {"prompt": prompt} for prompt in ("a", "b")]
    path.write_text("".join(json.dumps(row) + "\n" for row in twice))
    data = load(BENCHMARKS["rewardbench"], str(path), partial=True)
    assert [case.items[0].id for case in data.cases] == ["Safety/donotanswer/7", "Safety/donotanswer/7#2"]


def test_the_digest_changes_with_whatever_is_judged_or_counted(tmp_path):
    benchmark = BENCHMARKS["judgebench"]
    path = write(tmp_path, "judgebench", 2)
    before = load(benchmark, str(path), partial=True).digest
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(reversed(lines)))
    assert load(benchmark, str(path), partial=True).digest == before
    for change in ({"label": "B>A"}, {"question": "else"}, {"response_A": "else"}, {"pair_id": "else"}):
        path.write_text(json.dumps(json.loads(lines[0]) | change) + "\n" + "".join(lines[1:]))
        assert load(benchmark, str(path), partial=True).digest != before


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("rewardbench", ["good"]),
        ("rewardbench2", ["right"]),
        ("ppe_preference", ["one", "two", "one", "two"]),  # rows go model_a, model_b, tie, tie
        ("ppe_correctness", ["r0", "r4", "r0"]),
        ("rmb", ["best"]),
        ("judgebench", ["one", "two"]),
        ("rm_bench", [*["good concise"] * 3, *["good detailed"] * 3, *["good marked"] * 3]),
    ],
)
def test_the_label_names_the_right_response(name, right, tmp_path):
    data = load(BENCHMARKS[name], str(write(tmp_path, name, 8)), partial=True)
    found = [item.responses[item.label] for case in data.cases for item in case.items if item.label is not None]
    assert found[: len(right)] == right


def test_a_response_of_realmistake_is_right_without_error(tmp_path):
    data = load(BENCHMARKS["realmistake"], str(write(tmp_path, "realmistake", 2)), partial=True)
    assert [case.facts["right"] for case in data.cases[:2]] == [False, True]


@needs_data
def test_published_files_are_read():
    judgebench = load(BENCHMARKS["judgebench"], str(SHARED / "judgebench" / "gpt.jsonl"))
    assert len(judgebench.cases) == 350 and not judgebench.absent
    assert sum(case.items[0].label == 0 for case in judgebench.cases) == 193
    styles = load(BENCHMARKS["rm_bench"], str(SHARED / "rm_bench"), partial=True)
    assert styles.rows == {"chat": 129, "code": 228}
    assert [absent.split()[0] for absent in styles.absent] == ["math", "safety-refuse", "safety-response"]
    assert sum(len(case.items) for case in styles.cases) == 9 * 357
