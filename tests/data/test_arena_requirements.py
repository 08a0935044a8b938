"""A requirement is met or broken as the response's text alone shows."""

import re

import pytest

from grm_jax.data.arena.requirements import FORMS, KINDS, WEIGHTS, Requirement, Response, quality
from grm_jax.data.arena.world import generate

TABLE = [
    # requirement, response, evidence, met
    ("use sun", "owl sun pen key", "yes", True),
    ("use sun", "owl cat pen key", "no", False),
    ("avoid sun", "owl cat pen key", "no", True),
    ("avoid sun", "owl cat pen sun", "yes", False),
    ("start sun", "sun cat pen key", "sun", True),
    ("start sun", "cat sun pen key", "cat", False),
    ("end sun", "cat pen key sun", "sun", True),
    ("end sun", "cat pen sun key", "key", False),
    ("length 4", "owl sun pen key", "4", True),
    ("length 4", "owl owl pen", "3", False),
    ("length 4", "owl sun pen key cat", "5", False),
    ("sun before pig", "sun owl pig", "sun", True),
    ("sun before pig", "pig owl sun", "pig", False),
    ("sun before pig", "sun owl cat", "sun", True),
    ("sun before pig", "owl pig cat", "pig", False),
    ("sun before pig", "owl pen cat", "none", False),
    ("twice sun", "sun owl sun pen", "2", True),
    ("twice sun", "owl pen cat key", "0", False),
    ("twice sun", "sun owl pen cat", "1", False),
    ("twice sun", "sun sun pen sun", "3", False),
]


def requirement(text: str) -> Requirement:
    first, second, *third = text.split()
    return Requirement("before", (first, *third)) if second == "before" else Requirement(first, (second,))


def breaks(text: str, words: list[str], form: str) -> bool:
    """Tells whether a response breaks a requirement, sharing nothing with the package."""
    if found := re.fullmatch(r"(\w+) before (\w+)", text):
        one, other = found.groups()
        places = {word: place for place, word in reversed(list(enumerate(words)))}
        return one not in places or places[one] > places.get(other, len(words))
    kind, argument = text.split()
    number = sum(word == argument for word in words)
    return {
        "use": number < 1,
        "avoid": number > 0,
        "start": words[:1] != [argument],
        "end": words[-1:] != [argument],
        "length": str(len(words)) != argument,
        "form": form != argument,
        "twice": number != 2,
    }[kind]


def read(text: str) -> tuple[list[str], str]:
    """Reads words and form off a response's text."""
    for form, pattern in {"brackets": r"\( ([a-z ]+) \)", "dot": r"([a-z ]+)\.", "plain": r"([a-z ]+)"}.items():
        if found := re.fullmatch(pattern, text):
            return found[1].split(" "), form
    raise AssertionError(text)


@pytest.mark.parametrize(("asked", "words", "evidence", "met"), TABLE)
def test_evidence_and_verdict(asked: str, words: str, evidence: str, met: bool) -> None:
    response = Response(tuple(words.split()), "plain")
    assert requirement(asked).text == asked
    assert requirement(asked).evidence(response) == evidence
    assert requirement(asked).met(response) is met
    assert breaks(asked, words.split(), "plain") is not met


@pytest.mark.parametrize(
    ("form", "text"), [("plain", "owl sun"), ("brackets", "( owl sun )"), ("dot", "owl sun.")], ids=str
)
def test_form(form: str, text: str) -> None:
    response = Response(("owl", "sun"), form)
    assert response.text == text
    assert read(text) == (["owl", "sun"], form)
    for asked in FORMS:
        assert requirement(f"form {asked}").evidence(response) == form
        assert requirement(f"form {asked}").met(response) == (asked == form)


def test_the_table_has_every_kind_met_and_broken() -> None:
    assert {(requirement(asked).kind, met) for asked, *_, met in TABLE} == {
        (kind, met) for kind in KINDS for met in (True, False) if kind != "form"
    }


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="rhyme"):
        Requirement("rhyme", ("sun",)).evidence(Response(("owl",), "plain"))


def test_quality_is_ten_minus_the_weights_and_at_least_one() -> None:
    asked = [requirement(text) for text in ("avoid sun", "length 4", "owl before pig", "twice cat")]
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
            weights = [WEIGHTS["before" if " before " in one else one.split()[0]] for one in found]
            assert worth == max(1, 10 - sum(weights))
            seen |= {"before" if " before " in one else one.split()[0] for one in found}
    assert seen == set(KINDS)
