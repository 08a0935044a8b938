"""A requirement is met or broken as the response's text alone shows."""

import re
from itertools import pairwise

import pytest

from grm_jax.data.arena.requirements import FORMS, KINDS, WEIGHTS, Requirement, Response, quality
from grm_jax.data.arena.world import generate

TABLE = [
    # requirement, response, evidence, met
    ("use sun", "owl sun pen key", "pen", True),
    ("use sun", "owl cat pen sun", "last", True),
    ("use sun", "owl cat pen key", "none", False),
    ("avoid sun", "owl cat pen key", "none", True),
    ("avoid sun", "owl sun pen key", "pen", False),
    ("avoid sun", "owl cat pen sun", "last", False),
    ("start sun", "sun cat pen key", "sun", True),
    ("start sun", "cat sun pen key", "cat", False),
    ("end sun", "cat pen key sun", "sun", True),
    ("end sun", "cat pen sun key", "key", False),
    ("length 4", "owl sun pen key", "4", True),
    ("length 4", "owl owl pen", "3", False),
    ("length 4", "owl sun pen key cat", "5", False),
    ("pig after sun", "owl sun pig key", "pig", True),
    ("pig after sun", "owl cat sun pig", "pig", True),
    ("pig after sun", "sun pig sun owl", "pig", True),
    ("pig after sun", "sun owl sun pig", "owl", False),
    ("pig after sun", "sun owl pig", "owl", False),
    ("pig after sun", "pig sun owl key", "owl", False),
    ("pig after sun", "owl pig sun", "last", False),
    ("pig after sun", "owl pig cat", "none", False),
    ("double sun", "owl sun sun pen", "sun", True),
    ("double sun", "owl pen sun sun", "sun", True),
    ("double sun", "sun sun sun pen", "sun", True),
    ("double sun", "sun owl sun sun", "owl", False),
    ("double sun", "sun owl pen cat", "owl", False),
    ("double sun", "owl pen sun", "last", False),
    ("double sun", "owl pen cat key", "none", False),
]


def requirement(text: str) -> Requirement:
    first, second, *third = text.split()
    return Requirement("after", (first, *third)) if second == "after" else Requirement(first, (second,))


def breaks(text: str, words: list[str], form: str) -> bool:
    """Tells whether a response breaks a requirement, sharing nothing with the package."""
    followers: dict[str, str] = {}
    for word, follower in pairwise([*words, ""]):
        followers.setdefault(word, follower)
    if found := re.fullmatch(r"(\w+) after (\w+)", text):
        return followers.get(found[2]) != found[1]
    kind, argument = text.split()
    return {
        "use": argument not in words,
        "avoid": argument in words,
        "start": words[:1] != [argument],
        "end": words[-1:] != [argument],
        "length": str(len(words)) != argument,
        "form": form != argument,
        "double": followers.get(argument) != argument,
    }[kind]


def read(text: str) -> tuple[list[str], str]:
    """Reads words and form off a response's text."""
    for form, pattern in {"dash": r"- ([a-z ]+)", "brackets": r"\( ([a-z ]+) \)", "stars": r"\* ([a-z ]+) \*"}.items():
        if found := re.fullmatch(pattern, text):
            return found[1].split(" "), form
    raise AssertionError(text)


@pytest.mark.parametrize(("asked", "words", "evidence", "met"), TABLE)
def test_evidence_and_verdict(asked: str, words: str, evidence: str, met: bool) -> None:
    response = Response(tuple(words.split()), "dash")
    assert requirement(asked).text == asked
    assert requirement(asked).evidence(response) == evidence
    assert requirement(asked).met_by(evidence) is requirement(asked).met(response) is met
    assert breaks(asked, words.split(), "dash") is not met


@pytest.mark.parametrize(
    ("form", "text"), [("dash", "- owl sun"), ("brackets", "( owl sun )"), ("stars", "* owl sun *")], ids=str
)
def test_form(form: str, text: str) -> None:
    response = Response(("owl", "sun"), form)
    assert response.text == text
    assert all(f" {word}" in text for word in response.words)  # a word is one token with the space before it
    assert read(text) == (["owl", "sun"], form)
    for asked in FORMS:
        assert requirement(f"form {asked}").evidence(response) == form
        assert requirement(f"form {asked}").met(response) == (asked == form)


def test_the_table_has_every_kind_met_and_broken() -> None:
    assert {(requirement(asked).kind, met) for asked, *_, met in TABLE} == {
        (kind, met) for kind in KINDS for met in (True, False) if kind != "form"
    }


@pytest.mark.parametrize(
    ("word", "follower"), [("sun", "sun"), ("pig", "owl"), ("owl", "pig"), ("key", "last"), ("cat", "none")]
)
def test_a_follower_is_the_word_after_the_first_of_its_kind(word: str, follower: str) -> None:
    assert Response(("sun", "sun", "pig", "owl", "pig", "key"), "dash").follower(word) == follower


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="rhyme"):
        Requirement("rhyme", ("sun",)).evidence(Response(("owl",), "dash"))


def test_quality_is_ten_minus_the_weights_and_at_least_one() -> None:
    asked = [requirement(text) for text in ("avoid sun", "length 4", "owl after pig", "double cat")]
    assert [one.weight for one in asked] == [4, 2, 4, 3]
    assert quality(()) == 10
    assert quality(tuple(asked[:2])) == 4
    assert quality(tuple(asked[:3])) == quality(tuple(asked)) == 1


def test_what_a_text_breaks_can_be_read_off_it() -> None:
    """Prompt and responses alone, read by pattern, give what the world recorded as broken, and the quality."""
    seen = set()
    for index in range(2000):
        item = generate("train" if index % 4 else "test", index, 11).item
        asked = item["prompt"].split(": ")[1].removesuffix(".").split("; ")
        assert len(asked) in (4, 5)
        for text, broken, worth in zip(item["responses"], item["meta"]["broken"], item["meta"]["quality"], strict=True):
            found = {one for one in asked if breaks(one, *read(text))}
            assert found == set(broken)
            assert len(broken) == len(found)
            kinds = ["after" if " after " in one else one.split()[0] for one in found]
            assert worth == max(1, 10 - sum(WEIGHTS[kind] for kind in kinds))
            seen |= {*kinds}
    assert seen == set(KINDS)
