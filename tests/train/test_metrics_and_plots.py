"""Laws of what a training run writes for people: rows, TensorBoard events, a plot."""

import json
import math
import struct

import numpy as np
import pytest

from grm_jax.errors import UserError
from grm_jax.train.metrics import WALL_CLOCK, MetricsLog, read_rows
from grm_jax.train.plots import PLOT, save_training_plots, training_figure


def values(step):
    return {"loss": 1 / 3 + step, "learning_rate": 1e-3 * step, "seconds": 10.0 * step}


def write(folder, steps, start=0):
    with MetricsLog(folder, start) as log:
        for step in steps:
            log.write(step, values(step))
        log.flush()


def events(path):
    """The events of a file of TFRecords: length, its checksum, the data, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    data, place = path.read_bytes(), 0
    while place < len(data):
        (size,) = struct.unpack_from("<Q", data, place)
        event = Event()
        event.ParseFromString(data[place + 12 : place + 12 + size])
        place += 16 + size
        yield event
    assert place == len(data)


def scalars(folder):
    """{(name, step): value} as TensorBoard shows them: a START event hides the steps from its own on that came before."""
    shown = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        for event in events(path):
            if event.HasField("session_log"):
                shown = {key: value for key, value in shown.items() if key[1] < event.step}
            for value in event.summary.value:
                shown[value.tag, event.step] = value.simple_value
    return shown


def test_rows_are_read_as_they_were_written(tmp_path):
    write(tmp_path, range(1, 4))
    assert read_rows(tmp_path / "metrics.jsonl") == [{"step": step, **values(step)} for step in (1, 2, 3)]


def test_rows_after_the_step_gone_on_from_are_cut(tmp_path):
    write(tmp_path, range(1, 8))
    with MetricsLog(tmp_path, 4) as log:
        assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
        assert log.seconds == 40.0
        log.write(5, {"loss": 0.0})
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5] and rows[-1] == {"step": 5, "loss": 0.0}


@pytest.mark.parametrize("cut", [1, 2, 20, 40])
def test_a_last_line_that_was_left_unfinished_is_no_row(tmp_path, cut):
    write(tmp_path, range(1, 4))
    path = tmp_path / "metrics.jsonl"
    text = path.read_text()
    path.write_text(text[:-cut])
    whole = 3 if cut == 1 else 2  # only the line's end is missing
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3][:whole]
    write(tmp_path, [whole + 1], start=whole)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [*range(1, whole + 2)]


def test_what_is_none_or_not_finite_is_left_out_of_rows_and_events(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        log.write(1, {"a": math.nan, "b": math.inf, "c": None, "d": -math.inf, "e": 0.0})
    assert read_rows(tmp_path / "metrics.jsonl") == [{"step": 1, "e": 0.0}]
    assert scalars(tmp_path) == {("e", 1): 0.0}


def test_events_hold_the_numbers_of_the_rows(tmp_path):
    write(tmp_path, range(1, 30))
    expected = {
        (name, row["step"]): value
        for row in read_rows(tmp_path / "metrics.jsonl")
        for name, value in row.items()
        if name != "step"
    }
    found = scalars(tmp_path)
    assert found.keys() == expected.keys() and len(found) == 3 * 29
    assert all(found[key] == np.float32(value) for key, value in expected.items())


def test_events_are_on_the_disk_with_a_flush_before_the_run_ends(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        log.write(1, values(1))
        log.flush()
        assert scalars(tmp_path)["loss", 1] == np.float32(values(1)["loss"])


def test_events_of_a_run_that_goes_on_are_those_of_its_rows(tmp_path):
    """Within one second, in which events files would take each other's names."""
    write(tmp_path, range(1, 7))
    write(tmp_path, range(4, 6), start=3)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    found = scalars(tmp_path)
    assert sorted(step for name, step in found if name == "loss") == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("place", ["replace", "fsync"])
def test_a_disk_that_refuses_is_one_line(tmp_path, monkeypatch, place):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"grm_jax.train.metrics.os.{place}", refuse)
    with pytest.raises(UserError) as caught:
        write(tmp_path, [1])
    assert (
        str(caught.value)
        == f"{tmp_path / 'metrics.jsonl'}: cannot be written: No space left on device; make room there"
    )


def test_a_full_disk_is_one_line_and_the_run_does_not_wait(tmp_path):
    with (
        pytest.raises(UserError, match=r"metrics.jsonl: cannot be written: No space left"),
        MetricsLog(tmp_path, 0) as log,
    ):
        log._events._py_recordio_writer._writer = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        log.write(1, values(1))


def test_the_plot_is_a_png_with_one_panel_a_metric(tmp_path):
    from PIL import Image

    rows = [
        {
            "step": step,
            "learning_rate": 0.1,
            "loss": 1.0 / step,
            **({"accuracy": 0.5} if step != 20 else {}),
            "seconds": step,
        }
        for step in (10, 20, 30)
    ]
    figure = training_figure(rows)
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["loss", "accuracy", "learning rate", "seconds"]
    assert [axes.lines[0].get_xdata().tolist() for axes in panels[:2]] == [[10, 20, 30], [10, 30]]
    assert panels[0].lines[0].get_ydata().tolist() == [0.1, 0.05, 1 / 30]
    assert not any(axes.axison for axes in figure.axes if axes not in panels)

    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_training_plots(tmp_path)
    with Image.open(tmp_path / PLOT) as image:
        assert image.format == "PNG" and image.size == (1440, 624)  # two lines of three panels
        assert len(image.convert("L").getcolors()) > 10  # something is drawn


def test_what_was_learnt_stands_before_what_it_took():
    names = [*reversed(WALL_CLOCK), "skipped_steps", "weight", "learning_rate", "gradient_norm", "loss"]
    titles = [axes.get_title() for axes in training_figure([{"step": 1, **dict.fromkeys(names, 1.0)}]).axes]
    expected = ["gradient_norm", "loss", "learning_rate", "weight", "skipped_steps", *WALL_CLOCK]
    assert [title for title in titles if title] == [name.replace("_", " ") for name in expected]


def test_a_run_without_rows_has_no_plot(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    save_training_plots(tmp_path)
    assert not (tmp_path / PLOT).exists()


def test_a_plot_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    (tmp_path / PLOT).mkdir(parents=True)
    with pytest.raises(UserError, match=r"training.png: cannot be written \(.+\); make room there"):
        save_training_plots(tmp_path)
