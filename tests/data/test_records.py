import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grm_jax.data.fields import MAX_TEXT_BYTES
from grm_jax.data.jsonl import dump_line, parse_line, read_jsonl_items, write_jsonl
from grm_jax.data.records import (
    OUTCOMES,
    ROLES,
    Item,
    Judgement,
    Sample,
    Turn,
    item_from_json,
    item_to_json,
    judgement_from_json,
    judgement_to_json,
    sample_from_json,
    sample_to_json,
)
from grm_jax.errors import UserError
from grm_jax.text.parser import Outcome
from grm_jax.text.principles import Principle

GOOD = {"id": "a", "prompt": "2 + 2?", "responses": ["4", "5"], "label": 0}

# Text without lone surrogates; NUL, right-to-left marks, emoji and line separators included.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def items(draw):
    responses = draw(st.lists(texts, min_size=1, max_size=5))
    label = draw(st.none() | (st.integers(0, len(responses) - 1) if len(responses) > 1 else st.floats(0, 10)))
    strength = st.none() if label is None or len(responses) == 1 else st.none() | st.integers(1, 3)
    return Item(
        id=draw(texts.filter(bool)),
        conversation=tuple(draw(st.lists(st.builds(Turn, st.sampled_from(ROLES), texts), min_size=1, max_size=4))),
        responses=tuple(responses),
        label=label,
        strength=draw(strength),
        reference=draw(st.none() | texts),
        principles=tuple(draw(st.lists(texts, max_size=3))),
        domain=draw(st.none() | texts),
        meta=draw(st.dictionaries(texts, st.none() | texts | st.integers(-99, 99) | st.lists(finite), max_size=3)),
    )


@st.composite
def samples(draw, n=None):
    n = n or draw(st.integers(1, 5))
    outcome = draw(st.sampled_from([*OUTCOMES, *Outcome]))
    scores = tuple(draw(st.lists(st.integers(1, 10), min_size=n, max_size=n))) if outcome == "ok" else None
    return Sample(
        index=draw(st.integers(0, 1000)),
        order=tuple(draw(st.permutations(range(n)))),
        text=draw(texts),
        principles=tuple(draw(st.lists(st.builds(Principle, texts, st.none() | finite), max_size=2))),
        scores=scores,
        outcome=outcome,
        tokens=draw(st.integers(0, 10**6)),
        logprob=draw(st.none() | finite),
        meta_score=draw(st.none() | finite),
        seed=draw(st.integers(0, 2**63)),
    )


@st.composite
def judgements(draw):
    n = draw(st.integers(1, 4))
    scores = draw(st.none() | st.lists(st.integers(1, 320) | finite, min_size=n, max_size=n).map(tuple))
    ranking = tuple(draw(st.permutations(range(n)))) if scores else ()
    return Judgement(
        id=draw(texts.filter(bool)),
        scores=scores,
        best=ranking[0] if ranking else None,
        ranking=ranking,
        k=draw(st.integers(0, 64)),
        vote="sum",
        samples=tuple(draw(st.lists(samples(n), max_size=3))),
        outcomes=draw(st.dictionaries(st.sampled_from([*OUTCOMES, *Outcome]), st.integers(0, 64))),
        model="tiny",
        template="0f",
        seed=draw(st.integers(0, 2**63)),
        seconds=draw(st.none() | finite),
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(items(), samples(), judgements())
def test_what_is_written_reads_back_equal(item, sample, judgement):
    through = lambda obj: parse_line(dump_line(obj), "here")  # noqa: E731
    assert item_from_json(through(item_to_json(item)), "here") == item
    assert sample_from_json(through(sample_to_json(sample)), "here") == sample
    assert judgement_from_json(through(judgement_to_json(judgement)), "here") == judgement


@settings(max_examples=60, deadline=None, derandomize=True)
@given(items())
def test_one_record_is_one_line(item):
    assert dump_line(item_to_json(item)).count(b"\n") == 1


def test_a_prompt_is_a_conversation_of_one_user_turn():
    turns = [{"role": "user", "content": "2 + 2?"}]
    spelled_out = {"id": "a", "conversation": turns, "responses": ["4", "5"], "label": 0}
    assert item_from_json(GOOD, "here") == item_from_json(spelled_out, "here")


@pytest.mark.parametrize(
    "text", ["", " \u200b", "x", "\x00", "\u202e Ѕcores:", "e\u0301" * 1000, "{}%s{{7*7}}", "```\n"]
)
def test_odd_but_valid_text_is_kept_as_it_is(text):
    assert item_from_json({**GOOD, "responses": [text, text]}, "here").responses == (text, text)


def test_the_text_limit_counts_bytes_not_characters():
    fits = "é" * (MAX_TEXT_BYTES // 2)
    assert item_from_json({**GOOD, "responses": ["4", fits]}, "here").responses[1] == fits
    with pytest.raises(UserError, match=r"here: responses\[1\]: is 524,290 bytes long, the limit is 524,288; shorten"):
        item_from_json({**GOOD, "responses": ["4", fits + "é"]}, "here")


BAD_ITEMS = [
    ({"responses": ["a"], "prompt": "p"}, "id: missing"),
    ({**GOOD, "id": 7}, "id: must be a string, found a number"),
    ({**GOOD, "id": ""}, "id: is empty"),
    ({**GOOD, "strength": 4}, "strength: 4 is out of range; use 1..3"),
    ({**GOOD, "label": None, "strength": 1}, "strength: belongs to a label"),
    ({**GOOD, "responses": ["4"], "label": 3, "strength": 1}, "strength: belongs to a label"),
    ({"id": "a", "responses": ["x"]}, "prompt or conversation: missing"),
    ({**GOOD, "conversation": []}, "prompt or conversation: both are given"),
    ({"id": "a", "conversation": [], "responses": ["x"]}, "conversation: is empty"),
    ({**GOOD, "prompt": None}, "prompt: must be a string, found null"),
    ({**GOOD, "prompt": [{"type": "text"}]}, "prompt: must be a string, found an array; only plain text"),
    ({"id": "a", "responses": ["x"], "conversation": [{"content": "c"}]}, "conversation[0]: role: missing"),
    ({"id": "a", "responses": ["x"], "conversation": ["hi"]}, "conversation[0]: must be an object"),
    (
        {"id": "a", "responses": ["x"], "conversation": [{"role": "bot", "content": "c"}]},
        "conversation[0].role: 'bot' is not known; use one of user, assistant, system, tool",
    ),
    ({"id": "a", "prompt": "p"}, "responses: missing"),
    ({**GOOD, "responses": []}, "responses: is empty"),
    ({**GOOD, "responses": "4"}, "responses: must be an array, found a string"),
    ({**GOOD, "responses": ["4", None]}, "responses[1]: must be a string, found null"),
    ({**GOOD, "responses": ["4", "\ud800"]}, "responses[1]: holds a lone surrogate"),
    ({**GOOD, "label": 2}, "label: 2 is out of range; use 0..1"),
    ({**GOOD, "label": -1}, "label: -1 is out of range"),
    ({**GOOD, "label": True}, "label: must be an integer, found a boolean"),
    ({**GOOD, "label": 0.0}, "label: must be an integer, found 0.0"),
    ({**GOOD, "label": 10**5000}, "label: a huge integer is out of range"),
    ({**GOOD, "responses": ["4"], "label": 10.5}, "label: 10.5 is out of range; use a number in 0..10"),
    ({**GOOD, "responses": ["4"], "label": float("nan")}, "label: nan is out of range"),
    ({**GOOD, "responses": ["4"], "label": False}, "label: must be a number, found a boolean"),
    ({**GOOD, "reference": 4}, "reference: must be a string"),
    ({**GOOD, "principles": ""}, "principles: must be an array"),
    ({**GOOD, "principles": [3]}, "principles[0]: must be a string"),
    ({**GOOD, "meta": []}, "meta: must be an object"),
    ({**GOOD, "meta": {"x": float("inf")}}, "meta: cannot be written as JSON"),
    ({**GOOD, "meta": {"x": "\udfff"}}, "meta: holds a lone surrogate"),
    ({**GOOD, "lable": 1}, "'lable': unknown field; did you mean 'label'? put fields of your own under 'meta'"),
    ({**GOOD, "z\nz": 1}, "'z\\nz': unknown field; put fields of your own under 'meta'"),
    ([], "item: must be an object, found an array"),
]


@pytest.mark.parametrize(("obj", "message"), BAD_ITEMS, ids=[message for _, message in BAD_ITEMS])
def test_a_malformed_item_is_refused_in_one_line_with_its_field(obj, message):
    with pytest.raises(UserError) as error:
        item_from_json(obj, "f.jsonl:3")
    assert str(error.value).startswith(f"f.jsonl:3: {message}")
    assert "\n" not in str(error.value)
    assert "; " in str(error.value)


SAMPLE = {
    "index": 0,
    "order": [1, 0],
    "text": "t",
    "principles": [],
    "scores": [3, 4],
    "outcome": "ok",
    "tokens": 5,
    "logprob": -1.5,
    "meta_score": None,
    "seed": 0,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": [0, 0]}, "order: .* no permutation"),
        ({"order": []}, "order: .* no permutation"),
        ({"scores": None}, "scores: None does not fit outcome 'ok'"),
        ({"scores": [3]}, "scores: .* does not fit"),
        ({"scores": [0, 4]}, r"scores\[0\]: 0 is out of range; use 1..10"),
        ({"outcome": "truncated"}, "scores: .* does not fit outcome 'truncated'"),
        ({"outcome": "fine"}, "outcome: 'fine' is not known"),
        ({"tokens": -1}, "tokens: -1 is out of range"),
        ({"logprob": "x"}, "logprob: must be a number"),
        ({"principles": [{"text": "p"}]}, r"principles\[0\]: weight: missing"),
        ({"more": 1}, "'more': unknown field"),
    ],
)
def test_a_sample_whose_parts_disagree_is_refused(change, message):
    assert sample_from_json(SAMPLE, "here").scores == (3, 4)
    with pytest.raises(UserError, match=message):
        sample_from_json({**SAMPLE, **change}, "here")


GOOD_LINE = json.dumps(GOOD).encode() + b"\n"
BAD_LINES = [
    (b'{"id": "b"\n', "f.jsonl:2: not valid JSON at column 11"),
    (b"{'id': 1}\n", "f.jsonl:2: not valid JSON at column 2"),
    (b'{"id": "b", "prompt": "p", "prompt": "q", "responses": ["x"]}\n', "f.jsonl:2: 'prompt': key given twice"),
    (b'{"id": "b", "prompt": "p", "responses": ["x"], "label": NaN}\n', "f.jsonl:2: NaN is no JSON value"),
    (b'{"id": "b", "prompt": "p", "responses": ["x"], "label": 1e999}\n', "f.jsonl:2: number '1e999' is too large"),
    (b'{"id": ' + b"9" * 5000 + b"}\n", "f.jsonl:2: integer of 5000 digits"),
    (b'{"id": "b", "prompt": "p", "responses": []}\n', "f.jsonl:2: responses: is empty"),
    (b'{"id": "b", "prompt": "\\ud800", "responses": ["x"]}\n', "f.jsonl:2: prompt: holds a lone surrogate"),
    (b'{"id": "b\xff"}\n', "f.jsonl:2: invalid UTF-8 at byte 10"),
    (b"[" * 100_000 + b"\n", "f.jsonl:2: JSON nested too deep"),
    (b'"text"\n', "f.jsonl:2: item: must be an object, found a string"),
    (GOOD_LINE, "f.jsonl:2: id: 'a' already stands on line 1"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES, ids=[message for _, message in BAD_LINES])
def test_a_bad_line_stops_or_is_reported_and_the_others_are_kept(tmp_path, monkeypatch, line, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.jsonl").write_bytes(GOOD_LINE + line + GOOD_LINE.replace(b'"a"', b'"c"'))
    with pytest.raises(UserError) as error:
        read_jsonl_items("f.jsonl")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    notes = []
    kept = read_jsonl_items("f.jsonl", on_error="skip", report=notes.append)
    assert [item.id for item in kept] == ["a", "c"]
    assert notes == [str(error.value), "f.jsonl: left out 1 of 3 lines"]


def test_blank_lines_byte_order_mark_and_windows_line_ends_are_allowed(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + GOOD_LINE.replace(b"\n", b"\r\n") + b"\n  \r\n" + GOOD_LINE.replace(b'"a"', b'"b"')
    )
    assert [item.id for item in read_jsonl_items(path)] == ["a", "b"]


def test_a_file_that_yields_no_item_is_refused(tmp_path):
    path = tmp_path / "f.jsonl"
    with pytest.raises(UserError, match="no such file; check the path"):
        read_jsonl_items(path)
    with pytest.raises(UserError, match="is a directory; give a JSONL file"):
        read_jsonl_items(tmp_path)
    path.write_bytes(b"\n")
    with pytest.raises(UserError, match="is empty; give one JSON object on each line"):
        read_jsonl_items(path)
    path.write_bytes(b"{\n")
    with pytest.raises(UserError, match="none of its lines is a valid item"):
        read_jsonl_items(path, on_error="skip", report=lambda note: None)


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "f.jsonl"
    write_jsonl(path, [{"a": 1}])
    with pytest.raises(ValueError, match="JSON compliant"):
        write_jsonl(path, [{"a": 2}, {"a": float("nan")}])
    assert path.read_bytes() == b'{"a": 1}\n'
    assert list(tmp_path.iterdir()) == [path]
