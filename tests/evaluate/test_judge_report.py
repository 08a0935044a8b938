"""Laws of the judge report: its figures by hand, and its page in a browser."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from grm_jax.data.records import Item, Judgement, Principle, Sample, Turn
from grm_jax.evaluate.judge_page import tables, to_html, to_markdown
from grm_jax.evaluate.judge_report import finite, flipped, judge_report, length_slope
from grm_jax.evaluate.protocol import Protocol
from grm_jax.evaluate.svg import Series, bar_chart, line_chart
from grm_jax.judge.run_store import Judged
from grm_jax.judge.voting import unvoted, vote
from grm_jax.spct.acceptance import accepted

RUN = {"model": "judge@1", "template": "tiny@2", "seed": 0}
NASTY = (
    '</script><script>document.title="owned"</script><img src=x onerror="document.title=\'owned\'">\u2028 & "quoted"'
)


def sample(index, scores, order=(0, 1), **given):
    outcome = "ok" if scores else "no_block"
    about = {"text": f"critique {index}", "tokens": 10 + index, "logprob": -1.0, "seed": 0}
    return Sample(index=index, order=order, scores=scores, outcome=outcome, **about | given)


def judged(name, *samples, label=0, n=2, domain="d", seconds=None):
    about = {"model": "judge@1", "template": "tiny@2", "seed": 0, "seconds": seconds}
    found: Judgement = vote(unvoted(name, samples, **about))
    return Judged(found, n, label, domain)


def make(entries, ks=(1, 2), **given):
    return judge_report(entries, ks, Protocol(), accepted, run=RUN, **given)


def test_a_pair_flips_when_the_votes_of_its_two_orders_name_different_winners():
    a, b = (0, 1), (1, 0)
    assert flipped(judged("i", sample(0, (7, 3), a), sample(1, (6, 4), b))) == 0
    assert flipped(judged("i", sample(0, (7, 3), a), sample(1, (4, 6), b))) == 1
    assert flipped(judged("i", sample(0, (7, 3), a), sample(1, (5, 5), b))) == 0.5
    assert (
        flipped(judged("i", sample(0, (7, 3), a), sample(1, (4, 6), b), sample(2, (9, 5), b))) == 0
    )  # summed by order
    assert flipped(judged("i", sample(0, (7, 3), a), sample(1, None, b))) is None
    assert flipped(judged("i", sample(0, (7, 3, 1), (0, 1, 2)), sample(1, (7, 3, 1), (1, 0, 2)), n=3)) is None


def test_the_length_slope_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    lengths, scores = [40, 80, 333], rng.integers(1, 11, (5, 3)).astype(float)
    slopes = [np.polyfit(np.log2(lengths), row, 1)[0] for row in scores]
    assert length_slope(scores, lengths) == pytest.approx(np.mean(slopes))
    assert length_slope(np.array([[3.0, 5.0]]), [100, 200]) == pytest.approx(2)  # two points more for twice the length
    assert length_slope(scores, [7, 7, 7]) is None


def test_the_figures_are_those_counted_by_hand():
    entries = [
        judged("right", sample(0, (9, 2)), sample(1, (8, 3), (1, 0)), seconds=4.0),
        judged("wrong", sample(0, (2, 9)), sample(1, (5, 5), (1, 0)), domain="e", seconds=2.0),
        judged("unread", sample(0, None), sample(1, None), domain="e"),
    ]
    report = make(entries)
    assert [row["mean"] for row in report["accuracy"]["all"]] == pytest.approx([1 / 3, 1 / 3])
    assert set(report["accuracy"]) == {"all", "d", "e"}
    assert report["rates"] == {"outcomes": {"ok": 4 / 6, "no_block": 2 / 6}, "k": 2, "tied": 0.0, "failed": 1 / 3}
    assert (report["flips"]["mean"], report["flips"]["count"]) == (0.25, 2)
    assert report["signal"]["right"]["mean"] == pytest.approx((1 + 0.25) / 2)
    assert report["signal"]["agree"]["mean"] == pytest.approx((1 + 0.5) / 2)
    assert sum(report["scores"]["labelled"]) == sum(report["scores"]["others"]) == 4
    assert report["scores"]["labelled"][8] == 1 and "unlabelled" not in report["scores"]
    cost = report["cost"]
    assert (cost["tokens"]["mean"], cost["tokens"]["most"]) == (10.5, 11)
    assert [row["tokens"] for row in cost["by_k"]] == [10.5, 21.0]
    assert report["meta"] is None and report["length"] is None
    texts = {"right": Item("right", (Turn("user", "q"),), ("x" * 10, "x" * 20), 0)}
    assert make(entries, items=texts)["length"]["mean"] == pytest.approx(-6)
    assert json.loads(json.dumps(finite(report), allow_nan=False))


def test_without_labels_and_samples_there_is_still_a_report():
    entries = [judged("a", sample(0, (3, 4)), label=None)]
    report = make(entries, ks=(1,))
    assert report["accuracy"]["all"] == [] and report["signal"]["right"] is None
    assert "unlabelled" in report["scores"]
    assert "Accuracy" not in to_markdown(report) and "| -" in to_markdown(report)
    assert "<html" in to_html(report, entries)


def page(count=3):
    """Items with texts that would be markup if anybody let them."""
    principle = Principle("be <b>kind</b>", None)
    texts, entries = {}, []
    for i in range(count):
        name = f"item {i} {NASTY}" if i == 0 else f"item {i}"
        critiques = [
            sample(0, (9, 2), text=f"Principles: be <b>kind</b>\n{NASTY}", principles=(principle,), meta_score=1.5),
            sample(1, (2, 9) if i % 2 else None, (1, 0), text="no", meta_score=-0.5),
        ]
        entries.append(judged(name, *critiques, domain=f"<i>{NASTY}"))
        texts[name] = Item(name, (Turn("user", NASTY),), (f"response {NASTY}", "other"), 0)
    return make(entries, items=texts), entries, texts


def test_nothing_from_outside_is_markup():
    report, entries, texts = page()
    text = to_html(report, entries, texts)
    assert NASTY not in text and "<b>kind" not in text
    assert text.count("<script") == 2 and "<img" not in text
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text


def test_charts_show_every_point_and_escape_names():
    drawn = line_chart([Series("a<b", [(1, 50.0), (8, 75.0)], [(45, 55), (70, 80)])], x_label="k", y_label="%")
    assert drawn.count("<circle") == 2 and "a&lt;b, 8: 75.0%" in drawn and "a<b" not in drawn
    bars = bar_chart([("x", [10.0, 30.0]), ("y", [5.0, 0.0])], ["1", "2"], x_label="s", y_label="%")
    one, half, three, none = (float(height) for height in re.findall(r'height="([\d.]+)"', bars))  # of 10, 5, 30 and 0%
    assert (three, half, none) == (pytest.approx(3 * one, abs=0.2), pytest.approx(one / 2, abs=0.2), 0)
    assert line_chart([], x_label="k", y_label="%") == ""


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--virtual-time-budget=8000", "--dump-dom",
]  # fmt: skip


def in_browser(text, script, tmp_path):
    """The document after a script has run in it, some time after the page's own."""
    path = tmp_path / "page.html"
    path.write_text(
        text.replace("</body>", f"<script>setTimeout(() => {{ {script} }}, 3000)</script></body>"), encoding="utf-8"
    )
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_in_a_browser(tmp_path):
    """Ten thousand items: only some rows are there; keys, filters and search do what they say; nothing nasty ran."""
    report, entries, texts = page(10_000)
    document = in_browser(
        to_html(report, entries, texts),
        """
        const pressed = (name) => new KeyboardEvent("keydown", {key: name, bubbles: true});
        const key = (name, target) => (target || document.body).dispatchEvent(pressed(name));
        const say = (name) => document.body.setAttribute(name, document.querySelector("#detail h3").textContent);
        const list = document.getElementById("list");
        document.body.setAttribute("data-rows", document.querySelectorAll(".row").length);
        document.body.setAttribute("data-marks", document.querySelectorAll("#detail mark").length);
        key("j"); key("j"); key("k"); say("data-second");
        key("End", list); say("data-last");
        document.querySelector("input[value=split]").click(); say("data-split");
        document.body.setAttribute("data-count", document.getElementById("count").textContent);
        const search = document.getElementById("search");
        search.value = "item 777 "; search.dispatchEvent(new Event("input"));
        document.body.setAttribute("data-found", document.getElementById("count").textContent);
        """,
        tmp_path,
    )
    found = dict(re.findall(r'(data-[a-z]+)="([^"]*)"', re.search(r"<body[^>]*>", document)[0]))
    assert 10 < int(found["data-rows"]) < 100 and found["data-marks"] == "1"
    assert found["data-second"] == "item 1" and found["data-last"] == "item 9999"
    assert found["data-split"] == "item 1" and found["data-count"] == "5000 of 10000"
    assert found["data-found"].endswith("of 10000") and int(found["data-found"].split()[0]) < 5000
    assert "<title>Judge report: judge@1</title>" in document and "<img" not in document


def test_the_tables_of_page_and_markdown_are_the_same():
    report, entries, texts = page()
    text = html.unescape(to_html(report, entries, texts))
    for title, (_, rows) in tables(report).items():
        assert title in text and title in to_markdown(report)
        assert all(cell in text for row in rows for cell in row)


def test_stated_scores_are_held_against_the_parts_that_critiques_state():
    weighed = (Principle("use frog", 3.0),)
    text = "Principles: use frog (3)\nResponse 1: ( a ): use frog none bad.\nResponse 2: ( b ): use frog b ok.\n"
    follows = sample(0, (10, 7), (1, 0), text=text, principles=weighed)
    differs = sample(1, (10, 5), (1, 0), text=text, principles=weighed)
    turned = sample(
        2, (7, 10), (1, 0), text=text, principles=weighed
    )  # as if it had looked at the responses the other way round
    silent = sample(3, (9, 2), text="Scores")
    found = make([judged("a", follows, differs), judged("b", turned, silent)])["weighted"]
    assert (found["critiques"], found["stated"]) == (4, 0.75)
    assert found["agree"]["mean"] == pytest.approx((0.5 + 0.0) / 2)
    assert found["same"]["mean"] == pytest.approx((1.0 + 0.0) / 2)
    assert found["gap"]["mean"] == pytest.approx(((0 + 1) / 2 + 3) / 2)
    assert "| critiques that state them | 75.0% |" in to_markdown(
        make([judged("a", follows, differs), judged("b", turned, silent)])
    )
    nothing = make([judged("c", silent)], ks=(1,))
    assert nothing["weighted"]["agree"] is None and "| weights and sub-scores | not stated |" in to_markdown(nothing)
