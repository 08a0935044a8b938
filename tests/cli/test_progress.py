"""Progress lines where there is no terminal."""

import pytest

from grm_jax.cli import progress


@pytest.mark.parametrize("begun", [0, 1000])
def test_the_time_left_is_that_of_the_steps_this_run_has_made(begun, monkeypatch, capsys):
    """A resumed run knows nothing of how long the steps before it took, and the first step of any run compiles."""
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.bar("work", 2000) as advance:
        for made, seconds in ((1, 20.0), (11, 40.0), (501, 1020.0)):
            clock[0] = 100.0 + seconds
            advance(begun + made, "")
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    left = [2 * (2000 - begun - made) for made in (11, 501)]  # two seconds a step
    assert lines == [
        f"work: {begun + 1}/2000, 20 s",
        f"work: {begun + 11}/2000, 40 s, {left[0]} s left",
        f"work: {begun + 501}/2000, 1020 s, {left[1]} s left",
    ]
