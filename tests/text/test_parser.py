import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grm_jax.text.parser import LONGEST, Critique, Outcome, parse_critique

BS = "\\boxed{"


def read(text: str, n: int = 2, truncated: bool = False) -> Critique:
    return parse_critique(text, n, truncated=truncated, principles_heading="Specific Criteria:")


def outcome(text: str, n: int = 2) -> str:
    critique = read(text, n)
    assert (critique.scores is None) == (critique.outcome is not Outcome.OK)
    return critique.outcome.value


OK = {
    "plain": f"Scores: {BS}8, 9}}",
    "no space": f"{BS}8,9}}",
    "wide": f"{BS} 8 ,\t9\n}}",
    "text after": f"{BS}8, 9}} So the second is better.\nThat is all.",
    "no label": f"### Output:\n{BS}8, 9}}",
    "bold": f"**Scores:** **{BS}8, 9}}**",
    "mathematics": f"$${BS}8, 9}}$$",
    "other numbers": f"**Overall Score**: 3\nScores: [10, 1]\n{BS}8, 9}}\n7, 7",
    "earlier block": f"{BS}1, 2}}\nNo: {BS}8, 9}}",
    "earlier quoted block": f"> {BS}1, 2}}\n`{BS}3, 4}}`\n```\n{BS}5, 6}}\n```\n{BS}8, 9}}",
    "later quoted block": f"{BS}8, 9}}\nas in `{BS}1, 2}}`",
    "quoted on the same line": f"It says `{BS}10, 1}}` but {BS}8, 9}}",
    "same block again on the line": f"{BS}8, 9}} or {BS}8,9}}",
    "stray braces": f"{{ }} }} {{x}} {{ {BS}8, 9}} }} {{",
    "unclosed earlier": f"put them in {BS}\n{BS}8, 9}}",
    "between code": f"`a` {BS}8, 9}} `b`",
    "lone backtick": f"a ` tick {BS}8, 9}}",
    "unequal backticks": f"a `` tick {BS}8, 9}} `",
    "fence closed by a longer one": f"```\nx\n````\n{BS}8, 9}}",
    "tildes": f"~~~\n```\n~~~\n{BS}8, 9}}",
    "no fence: backtick in its title": f"``` a`b\n{BS}8, 9}}",
    "greater than inside a line": f"9 > 8: {BS}8, 9}}",
}


@pytest.mark.parametrize("name", OK)
def test_readable(name: str):
    critique = read(OK[name])
    assert (critique.outcome, critique.scores, critique.principles) == (Outcome.OK, (8, 9), ())
    assert [field.strip() for field in OK[name][slice(*critique.block)].split(",")] == ["8", "9"]


NOT_INTEGER = [
    "7.5",
    "1e1",
    "ten",
    "10/10",
    "8-9",
    "NaN",
    "08",
    "00",
    "+3",
    "-0",
    "--3",
    "\u22123",
    "８",
    "٣",
    "²",
    "",
    " ",
]
NOT_INTEGER += [
    "[8",
    "8]",
    "(8)",
    "{8}",
    "\\text{8}",
    "8 9",
    "8\u00a0",
    "8%",
    "1_0",
    "0x8",
    "8.",
    "⁸",
    "inf",
    "True",
    "10\0",
]
OUT_OF_RANGE = ["0", "11", "-3", "-10", "100", "9" * 5000, "-" + "9" * 5000]


@pytest.mark.parametrize("field", NOT_INTEGER)
def test_not_integer(field: str):
    assert outcome(f"{BS}{field}, 9}}") == outcome(f"{BS}9, {field}}}") == outcome(f"{BS}{field}}}", 1) == "not_integer"


@pytest.mark.parametrize("field", OUT_OF_RANGE)
def test_out_of_range(field: str):
    assert (
        outcome(f"{BS}{field}, 9}}") == outcome(f"{BS}9, {field}}}") == outcome(f"{BS}{field}}}", 1) == "out_of_range"
    )


def test_every_score_in_range_is_ok_and_no_other():
    for score in range(-200, 200):
        assert (outcome(f"{BS}{score}}}", 1) == "ok") == (1 <= score <= 10)


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        (f"{BS}8, 9, }}", 2, "not_integer"),
        (f"{BS}8, 9,}}", 3, "not_integer"),
        (f"{BS}[8, 9]}}", 2, "not_integer"),
        (f"{BS}8，9}}", 2, "not_integer"),
        (f"{BS}8; 9}}", 2, "not_integer"),
        (f"{BS}1,000}}", 1, "not_integer"),
        (f"{BS}1,100}}", 1, "wrong_count"),
        (f"{BS}8}}", 2, "wrong_count"),
        (f"{BS}8, 9}}", 1, "wrong_count"),
        (f"{BS}8, 9, 10}}", 2, "wrong_count"),
        (f"{BS}8, {BS}9}}}}", 2, "not_integer"),
        # not_integer goes before wrong_count, and that before out_of_range
        (f"{BS}0, 7.5, 3}}", 2, "not_integer"),
        (f"{BS}0, 11, 3}}", 2, "wrong_count"),
    ],
)
def test_counts_separators_and_precedence(text: str, n: int, expected: str):
    assert outcome(text, n) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no_block"),
        ("Scores: [8, 9]", "no_block"),
        ("Scores: 8, 9", "no_block"),
        ("\\fbox{8, 9} \\Boxed{8, 9} boxed{8, 9} \\boxed 8", "no_block"),
        (BS, "no_block"),
        (f"{BS}8, 9", "no_block"),
        (f"use `{BS}` here", "no_block"),
        ("I cannot judge this.", "no_block"),
        (f"{BS}8, 9}}\nor {BS}9, 8", "ambiguous"),
        (f"{BS}8, 9}} {BS}", "ambiguous"),
        (f"{BS}9, 8 or {BS}8, 9}}", "ambiguous"),
        (f"{BS}8, 9}} or {BS}9, 8}}", "ambiguous"),
        (f"Response 1: {BS}8}}, Response 2: {BS}9}}", "ambiguous"),
        (f"{BS}8, 9}} {BS}x}} {BS}8, 9}}", "ambiguous"),
        (f"> {BS}8, 9}}", "ambiguous"),
        (f"   > {BS}8, 9}}", "ambiguous"),
        (f"`{BS}8, 9}}`", "ambiguous"),
        (f"a `` ` {BS}8, 9}} ``", "ambiguous"),
        (f"```\n{BS}8, 9}}\n```", "ambiguous"),
        (f"```json\n{BS}8, 9}}", "ambiguous"),
        (f"~~~\n```\n{BS}8, 9}}\n~~~", "ambiguous"),
        (f"````\n```\n{BS}8, 9}}\n````", "ambiguous"),
        (f"```\n``` no end\n{BS}8, 9}}\n```", "ambiguous"),
        (f'The response says "Scores: [10, 1]"\r> {BS}10, 1}}\r', "ambiguous"),
    ],
)
def test_missing_and_ambiguous_blocks(text: str, expected: str):
    assert outcome(text) == expected


@pytest.mark.parametrize("text", ["", f"{BS}8, 9}}", f"{BS}8, 9}} or {BS}9", f"{BS}ten}}", "so " * 1000])
def test_a_generation_that_was_cut_off_is_truncated(text: str):
    assert read(text, truncated=True) == Critique(Outcome.TRUNCATED, None, ())


def test_principles_are_read_whatever_the_outcome():
    text = "Specific Criteria: facts (60%); style (40%)\nAnalysis: both fail."
    assert [principle.weight for principle in read(text).principles] == [0.6, 0.4]
    assert read(text).principles == read(text, truncated=True).principles


@settings(derandomize=True, database=None, deadline=None, max_examples=200)
@given(
    scores=st.lists(st.integers(1, 10), min_size=1, max_size=20),
    before=st.text("ab `>~{}\\\n,.8", max_size=40),
    gap=st.sampled_from(["", " ", "\n", "\t"]),
)
def test_a_well_formed_last_line_is_read_or_refused_but_never_misread(scores: list[int], before: str, gap: str):
    text = f"{before}\n{BS}{f',{gap}'.join(map(str, scores))}}}"
    critique = read(text, len(scores))
    assert critique.scores in (tuple(scores), None)
    if "`" not in before and "~" not in before and BS not in before:
        assert critique.scores == tuple(scores)


@settings(derandomize=True, database=None, deadline=None, max_examples=300)
@given(
    text=st.lists(st.sampled_from([BS, "}", "{", "8", ",", "`", "```", "\n", "> ", "~~~", " ", "x"]), max_size=30).map(
        "".join
    )
)
def test_scores_are_always_n_in_range(text: str):
    critique = read(text)
    assert (critique.scores is None) == (critique.outcome is not Outcome.OK)
    assert critique.scores in (None, (8, 8))


@pytest.mark.parametrize(
    "unit",
    [
        BS,
        "{}",
        "{",
        "}",
        "\n",
        "`",
        "` `` ",
        "```\n",
        ">\n",
        "~~~\n`",
        f"{BS}1, 2}}",
        f"`{BS}1}}`",
        ",",
        "Specific Criteria:(",
        "weight ",
    ],
)
def test_ten_megabytes_take_no_longer_than_a_critique(unit: str):
    text = unit * (10_000_000 // len(unit))
    started = time.process_time()
    read(text)
    assert time.process_time() - started < 1.0


def test_of_an_endless_text_the_end_is_read():
    endless = "Response 1 is good. " * 500_000
    assert outcome(endless) == "no_block"
    assert read(f"{BS}1, 1}}\n{endless}\n{BS}8, 9}}").scores == (8, 9)
    assert outcome(f"{BS}8, 9}}\n" + "x" * LONGEST) == "no_block"
    assert read(f"{BS}8, 9}}\n" + "x" * (LONGEST - 20)).scores == (8, 9)
    assert read("x" * LONGEST + f"{BS}8, 9}}\n").scores == (8, 9)
    # The cut falls into a quotation, which does not lose its mark.
    assert outcome(f"\n> {'y' * 100}{BS}8, 9}}\n" + "x" * (LONGEST - 50)) == "no_block"


def test_deep_nesting_is_no_recursion():
    assert outcome(BS * 20_000 + "}" * 20_000) == "not_integer"


def verdict(text: str, n: int = 2) -> Critique:
    return parse_critique(text, n, truncated=False, principles_heading="Specific Criteria:", verdict=True)


@pytest.mark.parametrize("n", [2, 3, 12])
def test_a_verdict_names_one_response(n: int):
    for best in range(1, n + 1):
        critique = verdict(f"Best: {BS}{best}}} because", n)
        assert critique.outcome is Outcome.OK
        assert critique.scores == tuple(10 if place == best else 1 for place in range(1, n + 1))


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (f"{BS}3}}", "out_of_range"),
        (f"{BS}0}}", "out_of_range"),
        (f"{BS}-1}}", "out_of_range"),
        (f"{BS}{'9' * 10_000}}}", "out_of_range"),
        (f"{BS}1, 2}}", "wrong_count"),
        (f"{BS}8, 9}}", "wrong_count"),
        (f"{BS}1,}}", "not_integer"),
        (f"{BS}}}", "not_integer"),
        (f"{BS}A}}", "not_integer"),
        (f"{BS}Response 1}}", "not_integer"),
        (f"{BS}01}}", "not_integer"),
        (f"{BS}\u0661}}", "not_integer"),
        (f"{BS}\uff11}}", "not_integer"),
        ("Best: Response 1", "no_block"),
        ("[[1]]", "no_block"),
        (f"`{BS}1}}`", "ambiguous"),
        (f"> {BS}1}}", "ambiguous"),
        (f"```\n{BS}1}}", "ambiguous"),
        (f"{BS}1}} or {BS}2}}", "ambiguous"),
        (f"{BS}1}} {BS}", "ambiguous"),
    ],
)
def test_what_names_no_response_is_an_outcome(text: str, outcome: str):
    critique = verdict(text)
    assert (critique.outcome.value, critique.scores, critique.block) == (outcome, None, None)


def test_the_last_verdict_that_is_not_quoted_counts():
    """A response that was quoted does not decide."""
    assert verdict(f"> {BS}1}}\nResponse 1 says `{BS}1}}`.\n{BS}2}}").scores == (1, 10)
    assert verdict(f"{BS}1}}\nNo: {BS}2}}\nas in `{BS}1}}`").scores == (1, 10)


def test_a_block_is_found_in_a_text_too_long_to_read_whole():
    text = "x\n" * LONGEST + f"{BS}2}}"
    critique = verdict(text)
    assert text[slice(*critique.block)] == "2"
