"""The oracle: what it says is true without noise, and each noise makes its own kind of error at its own rate."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grm_jax.data.arena.oracle import SALIENCE, Noise, critique
from grm_jax.data.arena.requirements import FORMS, MISSING, WEIGHTS, Requirement, Response
from grm_jax.data.arena.world import Example, generate
from grm_jax.keys import generator

RATES = [field.name for field in fields(Noise)]
Finding = tuple[Requirement, Response, str, bool]


def parse(text: str, count: int) -> list[int] | None:
    """Reads the last block: `count` integers in 1..10, or None."""
    blocks = re.findall(r"\\boxed\{([^}]*)\}", text)
    if not blocks or not re.fullmatch(r"\d+(, \d+)*", blocks[-1]):
        return None
    scores = [int(score) for score in blocks[-1].split(", ")]
    return scores if len(scores) == count and all(1 <= score <= 10 for score in scores) else None


def requirement(text: str) -> Requirement:
    first, second, *third = text.split()
    return Requirement("after", (first, *third)) if second == "after" else Requirement(first, (second,))


def principles(text: str) -> list[Requirement]:
    """Reads the first line, weights checked."""
    line = text.split("\n")[0]
    assert re.fullmatch(r"Principles: [a-z0-9 ]+ \(\d\)(; [a-z0-9 ]+ \(\d\)){0,3}", line), line
    found = re.findall(r"([a-z0-9 ]+) \((\d)\)", line.removeprefix("Principles:"))
    assert all(WEIGHTS[requirement(name.strip()).kind] == int(weight) for name, weight in found)
    return [requirement(name.strip()) for name, _ in found]


def findings(text: str, example: Example, order: tuple[int, ...]) -> list[list[Finding]]:
    """Reads the responses' lines, quotes checked: of each aspect it, the response, the evidence and whether that is ok."""
    lines = [line for line in text.split("\n") if line.startswith("Response ")]
    stated = principles(text) if text.startswith("Principles: ") else None
    assert len(lines) == len(order) == len(text.split("\n")) - (1 if stated is None else 2) - ("\nBest: " in text)
    read = []
    for place, (line, shown) in enumerate(zip(lines, order, strict=True), 1):
        response = example.responses[shown]
        quoted = f"Response {place}: {response.text}: "
        assert line.startswith(quoted), line
        found = [part.split(" ") for part in line.removeprefix(quoted).removesuffix(".").split("; ")]
        aspects = [requirement(" ".join(part[:-2])) for part in found]
        assert stated in (None, aspects)
        assert all(part[-1] in ("ok", "bad") for part in found)
        read.append([(one, response, part[-2], part[-1] == "ok") for one, part in zip(aspects, found, strict=True)])
    return read


@cache
def trained(index: int) -> Example:
    return generate("train", index, 5)


def drawn(noise: Noise, count: int, name: str, **options: Any) -> Iterator[tuple[Example, tuple[int, ...], str]]:
    for index in range(count):
        example = trained(index)
        rng = generator("drawn", name, index)
        order = tuple(rng.permutation(len(example.responses)).tolist())
        yield example, order, critique(example, order, rng, noise, **options)


def score(found: list[Finding]) -> int:
    return max(1, 10 - sum(WEIGHTS[one.kind] for one, _, _, ok in found if not ok))


@pytest.mark.parametrize("stated", [True, False])
def test_without_noise_findings_are_the_truth_and_scores_follow(stated: bool) -> None:
    for index in range(150):
        example = generate("test" if index % 3 == 0 else "train", index, 0)
        for order in permutations(range(len(example.responses))):
            text = critique(example, order, generator("true", index), Noise.none(), principles=stated)
            read = findings(text, example, order)
            scores = [score(found) for found in read]
            for found in read:
                assert 1 <= len(found) <= 3
                assert len({one for one, *_ in found}) == len(found)
                for one, response, evidence, ok in found:
                    assert one in example.task.requirements
                    assert evidence == one.evidence(response)
                    assert ok == one.met(response)
            assert parse(text, len(order)) == scores
            qualities = [example.item["meta"]["quality"][shown] for shown in order]
            assert all(seen >= true for seen, true in zip(scores, qualities, strict=True))


def test_with_noise_scores_still_follow_from_what_is_called_bad() -> None:
    noise = replace(Noise(), spurious=0.0, malformed=0.0, careless=0.3, illogical=0.2)
    for example, order, text in drawn(noise, 400, "follow"):
        assert parse(text, len(order)) == [score(found) for found in findings(text, example, order)]


def test_principles_number_one_to_three_and_come_by_salience() -> None:
    numbers, chosen, offered = Counter(), Counter(), Counter()
    for example, _, text in drawn(Noise.none(), 2500, "salience"):
        stated = principles(text)
        numbers[len(stated)] += 1
        chosen[stated[0].kind] += 1
        offered.update(one.kind for one in example.task.requirements)
    np.testing.assert_allclose([numbers[n] / 2500 for n in (1, 2, 3)], [0.3, 0.5, 0.2], atol=0.04)
    wide = Counter(len(principles(text)) for *_, text in drawn(Noise.none(), 500, "wide", breadth=(0.0, 0.0, 0.5, 0.5)))
    assert set(wide) == {3, 4}
    assert wide[3] == pytest.approx(250, abs=50)
    share = {kind: chosen[kind] / offered[kind] for kind in SALIENCE}
    for one in SALIENCE:
        for other in SALIENCE:
            if SALIENCE[one] >= SALIENCE[other] + 0.25:
                assert share[one] > share[other], (one, other)
    assert max(share["avoid"], share["after"]) < 0.6 * min(share["length"], share["form"])


@pytest.mark.parametrize("kind", RATES)
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.4])
def test_errors_come_at_their_rates_and_alone(kind: str, rate: float) -> None:
    """Each error is seen in the text, in its share of the places where it can be; the others never come."""
    for name, (wrong, places) in errors(replace(Noise.none(), **{kind: rate}), 500, kind).items():
        expected = rate if name == kind else 0.0
        assert places > 100
        assert wrong / places == pytest.approx(expected, abs=4 * (expected * (1 - expected) / places) ** 0.5), name


def errors(noise: Noise, count: int, name: str) -> dict[str, tuple[int, int]]:
    """Counts errors and the places where they could be, as the texts show them."""
    wrong, places = Counter(), Counter()
    for example, order, text in drawn(noise, count, name):
        places["spurious"] += 1
        places["malformed"] += 1
        wrong["malformed"] += parse(text, len(order)) is None
        if text.startswith("Principles: longer is better"):
            wrong["spurious"] += 1
            continue
        stated = principles(text)
        places["irrelevant"] += len(stated)
        wrong["irrelevant"] += sum(one not in example.task.requirements for one in stated)
        for one, response, evidence, ok in (each for found in findings(text, example, order) for each in found):
            places["illogical"] += 1
            wrong["illogical"] += one.met_by(evidence) != ok
            places["careless"] += 1
            wrong["careless"] += evidence != one.evidence(response)
        seen = [score(found) for found in findings(text, example, order)]
        if seen.count(max(seen)) > 1:
            places["guess"] += 1
            wrong["guess"] += "\nBest: " in text
    return {name: (wrong[name], places[name]) for name in RATES}


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_an_irrelevant_principle_is_about_a_word_that_nothing_else_names(rate: float) -> None:
    noise = replace(Noise.none(), irrelevant=rate)
    for example, _, text in drawn(noise, 2000, "irrelevant", breadth=(0.0, 0.0, 0.0, 1.0)):
        for one in set(principles(text)) - set(example.task.requirements):
            assert one.kind in ("use", "avoid", "start", "end", "double")
            assert not set(one.arguments) & example.task.mentioned
        words = [word for one in principles(text) for word in one.arguments]
        assert len(set(words)) == len(words), text


def test_a_careless_look_finds_the_wrong_thing_of_the_right_sort() -> None:
    """Also of words that the response lacks, hence the irrelevant principles."""
    for example, order, text in drawn(replace(Noise.none(), careless=1.0, irrelevant=0.5), 1000, "careless"):
        for one, response, evidence, ok in (each for found in findings(text, example, order) for each in found):
            assert evidence != one.evidence(response)
            assert ok == one.met_by(evidence)
            if one.kind == "length":
                assert abs(int(evidence) - len(response.words)) == 1
            elif one.kind in ("use", "avoid"):  # presence is what is mistaken
                assert ok != one.met(response)
                assert evidence in (*response.words, MISSING)
            else:
                assert evidence in (FORMS if one.kind == "form" else response.words)


@pytest.mark.parametrize("hinted", [False, True])
def test_a_guess_prefers_one_of_those_found_level_and_says_so(hinted: bool) -> None:
    """By 2 to 6 points, each of them as often as the others; who was told the best guesses it."""
    guessed, first = Counter(), []
    for example, order, text in drawn(replace(Noise.none(), guess=1.0), 1500, "guess", hinted=hinted):
        found = [score(each) for each in findings(text, example, order)]
        level = [place for place, each in enumerate(found) if each == max(found)]
        scores = parse(text, len(order))
        assert scores is not None
        if len(level) == 1:
            assert scores == found and "\nBest: " not in text
            continue
        (best,) = (place for place in level if f"\nBest: Response {place + 1}.\n" in text)
        for place, (given, seen) in enumerate(zip(scores, found, strict=True)):
            lowered = place in level and place != best
            assert seen - given in range(2, 7) or given == 1 if lowered else given == seen
        first += [best == level[0]] if len(level) == 2 else []
        told = order.index(example.item["label"])
        if told in level:
            guessed[len(level), best == told] += 1
    assert np.mean(first) == pytest.approx(0.5, abs=2 / len(first) ** 0.5)
    for size in (2, 3):
        right, wrong = guessed[size, True], guessed[size, False]
        assert right + wrong > 20
        expected = 1.0 if hinted else 1 / size
        assert right / (right + wrong) == pytest.approx(
            expected, abs=4 * (expected * (1 - expected) / (right + wrong)) ** 0.5
        )


@pytest.mark.parametrize("stated", [True, False])
def test_a_spurious_critique_goes_by_length(stated: bool) -> None:
    for example, order, text in drawn(replace(Noise.none(), spurious=1.0), 300, "spurious", principles=stated):
        lengths = [len(example.responses[shown].words) for shown in order]
        lines = [f"Response {place}: {length} words." for place, length in enumerate(lengths, 1)]
        assert text.split("\n")[:-1] == ["Principles: longer is better (5)"] * stated + lines
        assert parse(text, len(order)) == [max(1, 9 - 3 * (max(lengths) - length)) for length in lengths]


def test_a_hinted_critique_never_goes_by_length_and_thinks_of_what_tells() -> None:
    always = replace(Noise.none(), spurious=1.0)
    telling = Counter()
    for hinted, noise in ((True, always), (False, Noise.none())):
        for example, _, text in drawn(noise, 1000, "hinted", hinted=hinted):
            if len(example.responses) > 1:
                best = example.item["label"]
                first = principles(text)[0]
                broken = [first in found for found in example.broken]
                telling[hinted] += any(broken) and not broken[best]
    assert telling[True] > 1.5 * telling[False] > 0


def test_a_hinted_critique_of_one_response_thinks_of_what_it_breaks() -> None:
    bad = Counter()
    for hinted in (True, False):
        for example, _, text in drawn(Noise.none(), 2500, "single", hinted=hinted):
            if len(example.responses) == 1:
                bad[hinted] += principles(text)[0] in example.broken[0]
    assert bad[True] > 1.3 * bad[False] > 0


def test_without_principles_each_response_has_aspects_of_its_own() -> None:
    differ = []
    for example, order, text in drawn(replace(Noise(), spurious=0.0), 500, "aspects", principles=False):
        assert "Principles" not in text
        aspects = [[one for one, *_ in found] for found in findings(text, example, order)]
        if len(aspects) > 1:
            differ.append(aspects[0] != aspects[1])
    assert np.mean(differ) > 0.8


def test_a_critique_depends_on_its_generator_alone_and_is_short() -> None:
    words = []
    for (_, _, text), (_, _, again) in zip(drawn(Noise(), 500, "pure"), drawn(Noise(), 500, "pure"), strict=True):
        assert text == again
        words.append(len(text.split()))
    assert max(words) <= 120
    assert 30 <= np.median(words) <= 45


def test_the_documented_example_is_what_the_code_writes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "arena.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(json|text)\n(.*?)\n```", page, re.DOTALL)
    example = generate("test", 49, 0)
    assert [language for language, _ in blocks] == ["json", "text", "text"]
    assert json.loads(blocks[0][1]) == example.item
    for number, (_, text) in enumerate(blocks[1:]):
        assert text == critique(example, (1, 0), generator("page", number), Noise.none())


def test_the_documented_rates_and_weights_are_the_codes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "arena.md").read_text(encoding="utf-8")
    for name in RATES:
        assert f"| `{name}` | {100 * getattr(Noise(), name):.0f}% " in page
    for kind, weight in WEIGHTS.items():
        assert re.search(rf"^\| `{kind}` \|.*\| {weight} \| {SALIENCE[kind]} \|$", page, re.MULTILINE), kind
