"""A mistake in what is given ends with one line that names it, and exit code 2."""

import json
import shutil

import pytest

from grm_jax.judge.run_folder import RunFolder

GOOD = {"id": "good", "prompt": "p", "responses": ["a", "b"], "label": 0}


def line(**changes):
    obj = {**GOOD, "id": "bad", **changes}
    return json.dumps({key: value for key, value in obj.items() if value is not None}).encode()


MALFORMED = {
    "bad JSON": (b'{"id": "bad", "prompt": ', "not valid JSON at column"),
    "missing field": (line(responses=None), "responses: missing; add it"),
    "missing prompt": (line(prompt=None), "prompt or conversation: missing"),
    "wrong type": (line(prompt=7), "prompt: must be a string, found a number"),
    "wrong type inside": (line(responses=["a", ["b"]]), "responses[1]: must be a string, found an array"),
    "no responses": (line(responses=[]), "responses: is empty"),
    "label out of range": (line(label=2), "label: 2 is out of range; use 0..1"),
    "label of a single response": (line(responses=["a"], label=11), "label: 11 is out of range; use a number in 0..10"),
    "duplicate id": (line(id="good"), "id: 'good' already stands on line 1"),
    "invalid UTF-8": (b'{"id": "bad", "prompt": "\xff"}', "invalid UTF-8 at byte 26"),
    "megabyte": (line(responses=["a", "x" * 2**20]), "responses[1]: is 1,048,576 bytes long, the limit is 524,288"),
    "unknown field": (line(lable=1), "'lable': unknown field; did you mean 'label'?"),
    "not an object": (b"[1, 2]", "item: must be an object, found an array"),
}


@pytest.fixture
def malformed(tmp_path):
    def write(bad):
        path = tmp_path / "items.jsonl"
        path.write_bytes(json.dumps(GOOD).encode() + b"\n" + bad + b"\n" + line(id="last") + b"\n")
        return path

    return write


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_line_stops_the_command_before_anything_is_made(refused, malformed, tmp_path, judge_folder, kind):
    bad, message = MALFORMED[kind]
    path = malformed(bad)
    error = refused("judge", "--model", judge_folder, "--input", path, "--output", tmp_path / "run")
    assert error.startswith(f"grm judge: {path}:2: ")
    assert message in error
    assert len(error) < 400  # the bad value itself is not thrown at the user
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", MALFORMED)
def test_with_skip_the_other_lines_are_judged(grm, scripted, malformed, tmp_path, kind):
    bad, message = MALFORMED[kind]
    path = malformed(bad)
    skip = ("--on-error", "skip", "--k", 2)
    code, out, error = grm("judge", "--model", scripted, "--input", path, "--output", tmp_path / "run", *skip)
    assert code == 3
    first, second = error.splitlines()[:2]
    assert first.startswith(f"grm judge: {path}:2: ") and message in first
    assert second == f"grm judge: {path}: left out 1 of 3 lines"
    assert "1 not judged: 1 malformed lines, 0 prompts too long" in out
    judged = [json.loads(text)["id"] for text in (tmp_path / "run" / "judgements.jsonl").read_text().splitlines()]
    assert judged == ["good", "last"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--k", "0"), "--k must be at least 1, not 0"),
        (("--k", "many"), "argument --k: invalid int value: 'many'"),
        (("--rows", "0"), "--rows must be at least 1"),
        (("--max-new", "0"), "--max-new must be at least 1"),
        (("--max-new", "100000"), "below the model's context of 512 tokens"),
        (("--limit", "-1"), "--limit must be at least 1"),
        (("--vote", "loudest"), "--vote loudest: not known; use one of sum, mean, majority, rank"),
        (("--vote", "meta_topk"), "--vote meta_topk: samples have no meta scores"),
        (("--temperature", "-1"), "temperature must be 0 (greedy) or a positive number, not -1.0"),
        (("--top-p", "0"), "top_p must be above 0"),
        (("--layout", "csv"), "layout: 'csv' is not known; use one of items, judgebench"),
        (("--template", "nothing"), "nothing"),
        (("--input", "gone.jsonl"), "gone.jsonl: no such file"),
        (("--model", "gone"), "model gone: no such folder; give 'tiny' or 'tiny_meta', or"),
        (("--on-error", "ask"), "argument --on-error: invalid choice: 'ask'"),
        (("--gin_file", "gone.gin"), "gone.gin: no such gin file"),
        (("--colour", "red"), "unrecognized arguments: --colour red"),
    ],
)
def test_a_bad_option_of_judge(refused, judge_folder, items, tmp_path, arguments, message):
    given = ("judge", "--model", judge_folder, "--input", items, "--output", tmp_path / "run", *arguments)
    assert message in refused(*given)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_pickles_is_refused_for_what_it_is(refused, judge_folder, items, tmp_path):
    folder = shutil.copytree(judge_folder, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    error = refused("judge", "--model", folder, "--input", items, "--output", tmp_path / "run")
    assert "pytorch_model.bin" in error and "safetensors" in error


def test_a_run_of_another_identity_is_refused_and_kept(grm, refused, scripted, items, tmp_path):
    run = tmp_path / "run"
    given = ("judge", "--model", scripted, "--input", items, "--output", run, "--k", 2)
    assert grm(*given)[0] == 0
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert "this run was made with seed = 0, now 1 is asked" in refused(*given, "--seed", 1)
    assert "policy.temperature = 0.5, now 0.9 is asked" in refused(*given, "--temperature", 0.9)
    other = shutil.copytree(scripted, tmp_path / "other")
    assert "this run was made with model = 'random@" in refused(*given[:1], "--model", other, *given[3:])
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_run_in_use_is_refused(grm, refused, scripted, items, tmp_path):
    given = ("judge", "--model", scripted, "--input", items, "--output", tmp_path / "run", "--k", 2)
    assert grm(*given)[0] == 0
    identity = json.loads((tmp_path / "run" / "run.json").read_text())
    with RunFolder.open(tmp_path / "run", identity):
        assert "another process is writing this run" in refused(*given)
    assert grm(*given)[0] == 0


def test_an_item_that_changed_is_refused(grm, refused, scripted, items, tmp_path):
    given = ("judge", "--model", scripted, "--input", items, "--output", tmp_path / "run", "--k", 2)
    assert grm(*given)[0] == 0
    items.write_text(items.read_text().replace("Is 3 odd?", "Is 3 even?"))
    assert "item 'i3' was stored with other texts" in refused(*given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--k", "3,x"), "--k 3,x: write numbers with commas"),
        (("--k", "0,1"), "every k must be at least 1"),
        (("--k", "9"), "has 2 samples, k = 9 is asked; use 1..2"),
        (("--vote", "loudest"), "vote: 'loudest' is not known"),
        (("--vote", "meta_soft"), "has no meta score"),
        (("--ties", "coin"), "ties: 'coin' is not known"),
        (("--failures", "ignore"), "failures: 'ignore' is not known"),
        (("--subsets", "-1"), "subsets: -1 is negative"),
        (("--k-meta", "1"), "k_meta: the vote 'sum' does not use it"),
        (("--judgements", "no/such/file"), "there is no folder no/such; make it first"),
        (("--plot", "no/such.png"), "there is no folder no; make it first"),
        (("--gin.Sft.steps=3",), "this subcommand takes no gin settings"),
    ],
)
def test_a_bad_option_of_report(grm, refused, scripted, items, tmp_path, arguments, message):
    assert grm("judge", "--model", scripted, "--input", items, "--output", tmp_path / "run", "--k", 2)[0] == 0
    assert message in refused("report", tmp_path / "run", *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--split", "dev"), "dev"),
        (("--count", "0"), "--count must be at least 1"),
        (("--families", "odd"), "odd"),
        (("--output", "no/such.jsonl"), "there is no folder no; make it first"),
        (("--output", "."), "is a folder; name a file"),
    ],
)
def test_a_bad_option_of_data(refused, tmp_path, arguments, message):
    given = ("data", "arena", "--split", "test", "--count", 2, "--output", tmp_path / "items.jsonl", *arguments)
    assert message in refused(*given)


def test_a_folder_that_is_no_run_is_no_report(refused, tmp_path):
    assert "holds no run.json" in refused("report", tmp_path)


@pytest.mark.parametrize("place", ["before", "after", "inside"])
def test_debug_shows_where_a_mistake_was_found(grm, tmp_path, place):
    given = ["data", "arena", "--split", "dev", "--count", 1, "--output", tmp_path / "x"]
    given.insert({"before": 0, "after": len(given), "inside": 1}[place], "--debug")
    code, _, error = grm(*given)
    assert code == 2
    assert error.startswith("Traceback (most recent call last):")
    assert error.splitlines()[-1].startswith("grm data: ")
