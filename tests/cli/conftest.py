import functools

import pytest

import grm_jax.judge.judge
from grm_jax.cli import main
from grm_jax.data.jsonl import write_jsonl
from grm_jax.judge.judge import Judge
from tests.tiny_judge import Scripted, write_judge


@pytest.fixture(scope="session")
def judge_folder(tmp_path_factory):
    return write_judge(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture
def grm(capsys):
    """Runs the command line in this process: (arguments) -> (exit code, standard output, standard error)."""

    def run(*arguments):
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(grm):
    """Runs a command that must end with exit code 2 and one line on standard error; returns the line."""

    def run(*arguments):
        code, out, error = grm(*arguments)
        assert code == 2, error
        assert out == ""
        assert error.count("\n") == 1 and error.endswith("\n"), error
        return error

    return run


@pytest.fixture
def items(tmp_path):
    """Eight labelled items of nearly the same length, so that few shapes are compiled."""
    path = tmp_path / "items.jsonl"
    write_jsonl(
        path,
        ({"id": f"i{i}", "prompt": f"Is {i} odd?", "responses": ["yes", "no"], "label": (i + 1) % 2} for i in range(8)),
    )
    return path


@pytest.fixture
def scripted(judge_folder, monkeypatch):
    """Puts a critic into every judge whose scores follow from a sample's key alone; one critique in eight has none."""

    def write(request, j):
        first, second = (int(number) for number in request.keys[j])
        return "no verdict" if first % 8 == 0 else f"\\boxed{{{1 + first % 9}, {1 + second % 9}}}"

    monkeypatch.setattr(grm_jax.judge.judge, "Sampler", lambda *args, **settings: Scripted(judge_folder, write))
    return judge_folder


@pytest.fixture(scope="session")
def loaded():
    """`Judge.load` that remembers: the same arguments give the same judge, compiled shapes and all."""
    return functools.cache(Judge.load)


@pytest.fixture
def compiled(judge_folder, loaded, monkeypatch):
    """The random judge, compiled once for all tests that really sample."""
    monkeypatch.setattr(Judge, "load", loaded)
    return judge_folder
