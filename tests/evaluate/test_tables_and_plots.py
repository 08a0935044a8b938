import io
import json
import re

import pytest
from rich.console import Console
from stored_items import judged

from grm_jax.errors import UserError
from grm_jax.evaluate.accuracy import scaling
from grm_jax.evaluate.plots import save_scaling_plot, scaling_figure
from grm_jax.evaluate.protocol import Protocol
from grm_jax.evaluate.tables import to_json, to_rich, to_text
from grm_jax.evaluate.vote_curves import vote_curves


@pytest.fixture
def report():
    items = [judged(f"right {i}", [(9, 1), (9, 1), None, (9, 1)], 0) for i in range(3)]
    items += [judged("late", [(1, 9), (9, 1), (9, 2), (9, 2)], 0), judged("unlabelled", [(1, 2)] * 4, None)]
    return scaling(items, [1, 2, 4], Protocol())


def test_the_plain_table_holds_every_figure_in_its_column(report):
    lines = to_text(report).splitlines()
    assert lines[0].split() == ["k", "accuracy", "95%", "interval", "tied", "no", "verdict"]
    first = report.rows[0].accuracy
    assert lines[1].split() == ["1", "75.0", f"{100 * first.low:.1f}", "to", f"{100 * first.high:.1f}", "0.0", "0.0"]
    assert lines[2].split()[-2:] == ["25.0", "0.0"]  # one of four items is tied at k = 2
    assert [line.split()[0] for line in lines[1:4]] == ["1", "2", "4"]
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[4].startswith("4 items, 1 without label left out; vote sum on the first k samples; ties expected")
    assert lines[5] == "all samples: ok 85.0%, no_block 15.0%"


def test_the_error_of_single_responses_has_its_own_column():
    items = [judged("one", [(7,)], 5, n=1)]
    lines = to_text(scaling(items, [1], Protocol())).splitlines()
    assert lines[0].endswith("error, n=1")
    assert lines[1].split() == ["1", "-", "-", "-", "-", "2.00", "(2.00", "to", "2.00)"]


def test_the_terminal_table_fits_into_80_columns_unbroken():
    right, wrong = ([judged(f"{label} {i}", [(9, 1)] * 1024, label) for i in range(6)] for label in (0, 1))
    single = [judged(f"one {i}", [(2 + i,)] * 1024, 10, n=1) for i in range(4)]
    report = scaling([*right, *wrong, *single], [1, 1024], Protocol())
    out = io.StringIO()
    Console(file=out, width=80).print(to_rich(report))
    shown = [re.split(r"\s*[│┃]\s*", line)[1:-1] for line in out.getvalue().splitlines() if line[0] in "│┃"]
    plain = [re.split(r"\s{2,}", line.strip()) for line in to_text(report).splitlines()[:3]]
    assert shown == plain
    assert shown[2][-1] == "6.50 (5.50 to 7.50)"


def test_a_table_without_labels_has_rates_and_says_so():
    items = [judged("a", [(5, 5)], None), judged("b", [None], None)]
    lines = to_text(scaling(items, [1], Protocol())).splitlines()
    assert lines[1].split() == ["1", "-", "-", "50.0", "50.0"]
    assert lines[2].startswith("2 items, none with a label; vote sum")


def test_the_terminal_table_shows_the_cells_of_the_plain_one(report):
    out = io.StringIO()
    Console(file=out, width=120).print(to_rich(report))
    shown = out.getvalue()
    for cell in to_text(report).split():
        assert cell in shown


def test_json_keeps_the_figures_unrounded(report):
    read = json.loads(json.dumps(to_json(report), allow_nan=False))
    assert read["rows"][0]["accuracy"]["mean"] == report.rows[0].accuracy.mean
    assert [row["k"] for row in read["rows"]] == [1, 2, 4]
    assert read["protocol"]["ties"] == "expected"
    assert read["outcomes"] == report.outcomes


@pytest.fixture
def curves():
    entries = [judged("right", [(9, 1)] * 4, 0), judged("mixed", [(9, 1), (1, 9), (5, 5), (9, 1)], 0)]
    return vote_curves(entries, [1, 2, 4], Protocol())


def test_the_plot_shows_the_curves_the_band_of_the_sum_and_one_sample(curves):
    axes, by_tokens = scaling_figure(curves).axes
    sums, baseline = axes.lines[0], axes.lines[-1]
    points = curves["curves"][0]["points"]
    assert list(sums.get_xdata()) == [1, 2, 4] == list(by_tokens.lines[0].get_xdata())  # a token a critique
    assert list(sums.get_ydata()) == [100 * point["mean"] for point in points]
    assert list(baseline.get_ydata()) == [81.25, 81.25]
    band = axes.collections[0].get_paths()[0].get_extents()
    assert band.y0 == pytest.approx(100 * min(point["low"] for point in points))
    assert band.y1 == pytest.approx(100 * max(point["high"] for point in points))
    assert (axes.get_xscale(), axes.xaxis.get_transform().base) == ("log", 2)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "4"]
    assert (axes.get_xlabel(), by_tokens.get_xlabel()) == ("critiques per item, k", "generated tokens per judgement")


def test_the_plot_is_saved_as_png(curves, tmp_path):
    save_scaling_plot(tmp_path / "curve.png", curves)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UserError, match="cannot be written"):
        save_scaling_plot(tmp_path / "no" / "curve.png", curves)


def test_a_plot_without_accuracy_is_refused():
    with pytest.raises(UserError, match="plot: no labelled item with two responses"):
        scaling_figure(vote_curves([judged("one", [(7,)], 5, n=1)], [1], Protocol()))
