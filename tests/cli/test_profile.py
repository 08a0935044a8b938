"""`--profile`: a real run leaves a trace that can be read and that names what was computed."""

import argparse
import threading

import jax
import pytest

from grm_jax.cli import _parser, profiling

SAMPLING = ("--k", 4, "--temperature", 1, "--max-new", 12, "--rows", 8)  # four batches of the eight items


def events(folder):
    """The names of all events, and the names of the XLA modules they are of."""
    (file,) = folder.rglob("*.xplane.pb")
    found = [
        event
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes
        for line in plane.lines
        for event in line.events
    ]
    return {event.name for event in found}, {
        str(value) for event in found for name, value in event.stats if name == "hlo_module"
    }


@pytest.fixture
def judge(grm, compiled, items):
    return lambda output, *more: grm(
        "judge", "--model", compiled, "--input", items, "--output", output, *SAMPLING, *more
    )


def test_a_run_leaves_a_trace_of_its_decoding(judge, tmp_path):
    code, _, error = judge(tmp_path / "run", "--profile")
    assert code == 0, error
    assert f"open it with `xprof --logdir {tmp_path / 'run' / 'profile'}`" in error
    names, modules = events(tmp_path / "run" / "profile")
    assert "jit_decode" in modules and "PjitFunction(decode)" in names
    code, _, error = judge(tmp_path / "plain")
    assert code == 0 and "profile" not in error
    assert not (tmp_path / "plain" / "profile").exists()
    samples = [(tmp_path / name / "samples.jsonl").read_bytes() for name in ("run", "plain")]
    assert samples[0] == samples[1]  # watching changes nothing


@pytest.fixture
def calls(monkeypatch):
    """Puts a list in the place of jax's profiler."""
    made, ended = [], threading.Event()

    def stop():
        made.append("stop")
        ended.set()

    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder, **_: made.append(folder))
    monkeypatch.setattr(jax.profiler, "stop_trace", stop)
    return made, ended


def wanted(folder, **more):
    return argparse.Namespace(output=str(folder), **{"profile": "", "profile_seconds": None, **more})


def test_it_begins_with_the_first_progress_and_ends_with_the_command(calls, tmp_path):
    made, _ = calls
    with profiling.profiling(wanted(tmp_path)):
        assert made == []
        for _ in range(2):
            profiling.progressed()
            assert made == [tmp_path / "profile"]
    assert made == [tmp_path / "profile", "stop"]
    profiling.progressed()
    assert len(made) == 2


def test_it_ends_by_itself_after_some_seconds(calls, tmp_path):
    made, ended = calls
    with profiling.profiling(wanted(tmp_path, profile=str(tmp_path / "there"), profile_seconds=0.01)):
        profiling.progressed()
        assert ended.wait(60)
        assert made == [tmp_path / "there", "stop"]
        profiling.progressed()
    assert made == [tmp_path / "there", "stop"]


def test_it_ends_with_an_interruption_too(calls, tmp_path):
    with pytest.raises(KeyboardInterrupt), profiling.profiling(wanted(tmp_path)):
        profiling.progressed()
        raise KeyboardInterrupt
    assert calls[0][-1] == "stop"


def test_what_cannot_be_traced_or_written_is_said(calls, tmp_path, monkeypatch, capsys):
    with profiling.profiling(wanted(tmp_path)):
        pass
    assert "nothing to trace" in capsys.readouterr().err and calls[0] == []

    def full():
        raise RuntimeError("no space left\nand a trace of C++")

    monkeypatch.setattr(jax.profiler, "stop_trace", full)
    with profiling.profiling(wanted(tmp_path)):
        profiling.progressed()
    assert capsys.readouterr().err == f"profile: {tmp_path / 'profile'} cannot be written (no space left)\n"


@pytest.mark.parametrize("command", ["judge", "eval", "rft", "train", "spct", "meta-score"])
def test_every_long_command_takes_it(command):
    (commands,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    assert {"--profile", "--profile-seconds"} <= set(commands.choices[command]._option_string_actions)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--profile-seconds", 3), "there is no --profile"),
        (("--profile", "--profile-seconds", 0), "must be above 0, not 0"),
        (("--profile", "--profile-seconds", "nan"), "must be above 0, not nan"),
    ],
)
def test_what_means_nothing_is_refused(refused, tmp_path, arguments, problem):
    assert problem in refused("judge", "--input", "nowhere", "--output", tmp_path / "run", *arguments)
