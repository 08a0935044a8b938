"""Laws of the pipeline: stages are done once, go on where they were stopped, and never under other settings."""

import contextlib
import itertools
import json

import pytest

from grm_jax.errors import UserError
from grm_jax.spct import stage_record
from grm_jax.spct.pipeline import Stage, is_finished, locked, run_stages
from grm_jax.spct.stage_record import plain, read_record


@contextlib.contextmanager
def no_bar(what, total):
    yield lambda done, note: None


class Worker:
    """Stages that write down when they ran; one of them may be stopped in the middle."""

    def __init__(self, folder, settings=(), stop_in="", free=()):
        self.ran, self.said = [], []
        self._folder, self._stop_in, self._free = folder, stop_in, frozenset(free)
        self._settings = {"a": {"steps": 1}, "b": {"rate": 0.5, "name": ("x", None)}, "c": {"k": 2}} | dict(settings)

    def stages(self, names="abc"):
        inputs = {"a": (), "b": ("a",), "c": ("a", "b")}
        return [Stage(n, {"Settings": self._settings[n]}, inputs[n], self._work(n), self._free) for n in names]

    def run(self, names="abc"):
        run_stages(self._folder, self.stages(names), bar=no_bar, report=self.said.append)
        return self.ran

    def _work(self, name):
        def work(home, bar):
            assert home == self._folder / name
            with bar("work", 1) as advance:
                self.ran.append(name)
                advance(1, "")
                if name == self._stop_in:
                    raise KeyboardInterrupt

        return work


def test_stages_run_in_order_and_once(tmp_path):
    assert Worker(tmp_path).run() == ["a", "b", "c"]
    again = Worker(tmp_path)
    assert again.run() == []
    assert [line.split(",")[0] for line in again.said] == [f"{name}: finished before" for name in "abc"]
    assert all(is_finished(tmp_path, name) for name in "abc") and not is_finished(tmp_path, "d")


def test_a_stopped_stage_runs_again_and_those_before_it_do_not(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Worker(tmp_path, stop_in="b").run()
    assert is_finished(tmp_path, "a") and not is_finished(tmp_path, "b") and not (tmp_path / "c").exists()
    again = Worker(tmp_path)
    assert again.run() == ["b", "c"]
    assert again.said[1] == "b: goes on"


def test_a_stage_alone_uses_what_is_finished_and_nothing_else(tmp_path):
    with pytest.raises(UserError, match="stage b reads stage a, which is not finished; run it as well"):
        Worker(tmp_path).run("b")
    with pytest.raises(KeyboardInterrupt):
        Worker(tmp_path, stop_in="a").run("a")
    with pytest.raises(UserError, match="stage b reads stage a, which is not finished"):
        Worker(tmp_path).run("b")
    assert Worker(tmp_path).run("a") == ["a"]
    assert Worker(tmp_path).run("b") == ["b"]


@pytest.mark.parametrize("stopped", ["", "b"])
def test_other_settings_are_refused_before_anything_runs(tmp_path, stopped):
    with contextlib.suppress(KeyboardInterrupt):
        Worker(tmp_path, stop_in=stopped).run("ab")
    changed = Worker(tmp_path, {"b": {"rate": 0.25, "name": ("x", None)}})
    state = "begun" if stopped else "finished"
    with pytest.raises(UserError) as error:
        changed.run()
    assert str(error.value).startswith(
        f"{tmp_path / 'b'}: stage b was {state} with Settings.rate = 0.5, now 0.25 is asked; put it back, or remove "
    )
    assert changed.ran == [] and "\n" not in str(error.value)


def test_a_result_is_refused_when_what_it_was_made_from_was_made_anew(tmp_path):
    Worker(tmp_path).run()
    (tmp_path / "a" / "stage.json").unlink()
    other = {"a": {"steps": 2}}
    with pytest.raises(UserError, match=r"stage b was finished with another stage a than there is now"):
        Worker(tmp_path, other).run()
    assert Worker(tmp_path).run() == ["a"]  # the same settings give the same result


def test_settings_that_only_add_may_change(tmp_path):
    Worker(tmp_path, free=["Settings.k"]).run()
    more = Worker(tmp_path, {"c": {"k": 4}}, free=["Settings.k"])
    assert more.run() == ["c"]
    assert Worker(tmp_path, {"c": {"k": 4}}, free=["Settings.k"]).run() == []


def test_time_is_counted_over_all_runs_and_noted_on_the_way(tmp_path, monkeypatch):
    clock = itertools.count(0, 7)
    monkeypatch.setattr(stage_record.time, "monotonic", lambda: float(next(clock)))
    noted = []
    monkeypatch.setattr(stage_record, "_TICK_SECONDS", 1)
    monkeypatch.setattr(
        stage_record, "write_record", lambda folder, record, write=stage_record.write_record: (
            noted.append(record.seconds), write(folder, record)
        ),
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        Worker(tmp_path, stop_in="a").run("a")
    first = read_record(tmp_path / "a").seconds
    assert first > 0 and len([seconds for seconds in noted if seconds > 0]) == 2  # at the tick, and when it stopped
    Worker(tmp_path).run("a")
    assert read_record(tmp_path / "a").seconds > first


def test_a_damaged_record_is_one_line(tmp_path):
    Worker(tmp_path).run("a")
    record = tmp_path / "a" / "stage.json"
    for text in ("{", "[]", "{}", record.read_text().replace('"steps": 1', '"steps": 2')):
        record.write_text(text)
        with pytest.raises(UserError, match=r"stage\.json: ") as error:
            Worker(tmp_path).run("a")
        assert "\n" not in str(error.value)


def test_two_commands_do_not_write_one_run(tmp_path):
    refused = pytest.raises(UserError, match="another process is writing this run")
    with locked(tmp_path / "run"), refused, locked(tmp_path / "run"):
        pass
    with locked(tmp_path / "run"):
        pass


def test_settings_become_plain_json_that_reads_back_equal(tmp_path):
    value = plain({"a": (1, 2.5, None), "b": {"c": tmp_path, "d": True}})
    assert value == json.loads(json.dumps(value)) == {"a": [1, 2.5, None], "b": {"c": str(tmp_path), "d": True}}
