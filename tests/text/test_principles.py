import pytest

from grm_jax.text.principles import Principle, read_principles


def read(text: str, heading: str = "Specific Criteria:") -> list[tuple[str, float | None]]:
    return [(principle.text, principle.weight) for principle in read_principles(text, heading)]


@pytest.mark.parametrize(
    ("clause", "text", "weight"),
    [
        ("facts (weight 30%)", "facts", 0.3),
        ("facts (weight: 30 %)", "facts", 0.3),
        ("facts (Weight = 0.3)", "facts", 0.3),
        ("facts, weight: 0.3", "facts", 0.3),
        ("facts weight of 3", "facts", 3.0),
        ("facts (3)", "facts", 3.0),
        ("facts [3]", "facts", 3.0),
        ("facts: 30%", "facts", 0.3),
        ("facts 12.5%.", "facts", 0.125),
        ("**facts (40%)**: dates, names.", "facts: dates, names", 0.4),
        ("at least 30% of the items are named", "at least 30% of the items are named", None),
        ("see item (3) above", "see item (3) above", None),
        ("facts (-3)", "facts (-3)", None),
        ("facts (high)", "facts (high)", None),
        ("facts (٣)", "facts (٣)", None),
        ("facts (1234567)", "facts (1234567)", None),
        ("weightless prose", "weightless prose", None),
    ],
)
def test_weights(clause: str, text: str, weight: float | None):
    assert read(f"Specific Criteria: {clause}") == [(text, weight)]


def test_clauses_on_the_headings_line():
    assert read("Principles: no forbidden word (4); sorted, last (3)\nStep: fork\n", "Principles:") == [
        ("no forbidden word", 4.0),
        ("sorted, last", 3.0),
    ]
    assert read("Specific Criteria: Facts (weight 40%), Style: 30%. Depth, breadth (30%)\nAnalysis: x") == [
        *(("Facts", 0.4), ("Style", 0.3), ("Depth, breadth", 0.3)),
    ]


@pytest.mark.parametrize(
    "heading", ["Specific Criteria:", "**Specific Criteria:**", "### **Specific Criteria**", "specific criteria: "]
)
@pytest.mark.parametrize(
    "end", ["Analysis: 1 is 30% longer", "**Analysis**", "## Next", "\nProse of its own.", "\\boxed{8, 9}"]
)
@pytest.mark.parametrize("mark", ["- ", "* ", "1. ", "2) ", "  • "])
def test_lists_under_the_heading(heading: str, end: str, mark: str):
    stated = f"{mark}**Facts** (60%): right\n   and complete\n\n{mark}Style: 40%"
    text = f"So:\n{heading}\n\n{stated}\n{end}\n{mark}not this (9)"
    assert read(text) == [("Facts: right and complete", 0.6), ("Style", 0.4)]


def test_unlisted_labels_with_weights_are_principles():
    assert read("Specific Criteria:\nFacts: are right (weight 60%)\nStyle: 40%\nAnalysis: x") == [
        ("Facts: are right", 0.6),
        ("Style", 0.4),
    ]


@pytest.mark.parametrize(
    "text", ["", "Specific Criteria:", "Criteria: a (3)", "My Specific Criteria: a (3)", "Specific Criteria: ; . ;"]
)
def test_nothing_to_read(text: str):
    assert read(text) == []


def test_only_the_first_heading_counts():
    assert read_principles("Specific Criteria: a\nSpecific Criteria: b", "Specific Criteria:") == (
        Principle("a", None),
    )
