import json
import shutil
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from grm_jax.errors import UserError
from grm_jax.text.tokenizer import Library, Tokenizer, check_tokenizer, load_tokenizer

REPEATABLE = settings(derandomize=True, database=None, deadline=None, max_examples=150)
CONTROL = [
    "<bos>",
    "<eos>",
    "<pad>",
    "<unk>",
    "<mask>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<unused7>",
    "[multimodal]",
]
any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=40)
# Whole and broken literals next to one another, where a scanner would slip.
hostile_text = st.lists(st.sampled_from([*CONTROL, "<", ">", "<bo", "s>", "start_of_turn>", " ", "\n", "é"])).map(
    "".join
)


def fake(pieces: list[str], marked: set[int], encode=None) -> Tokenizer:
    """A tokenizer that matches its pieces greedily, control or not, wherever the text holds them whole."""

    def greedy(text: str) -> list[int]:
        ids = []
        while text:
            piece = max((each for each in pieces if text.startswith(each)), key=len)
            ids.append(pieces.index(piece))
            text = text[len(piece) :]
        return ids

    return Tokenizer(
        "fake",
        Library(
            pieces={piece: id_ for id_, piece in enumerate(pieces)},
            marked=frozenset(marked),
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            encode=encode or greedy,
            decode=lambda ids: "".join(pieces[id_] for id_ in ids),
        ),
    )


def test_gemma_ids(tokenizer: Tokenizer):
    """The ids that Gemma-2's vocabulary has for these pieces."""
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id) == (0, 1, 2)
    assert tokenizer.control_id("<start_of_turn>") == 106
    assert tokenizer.stop_ids == {1, 107}
    assert tokenizer.control_ids == {*range(108), 109}
    assert tokenizer.encode("\n") == [108]


def test_the_libraries_alone_would_yield_control_ids(sentencepiece_folder: Path, json_folder: Path):
    """So these tests have something to catch."""
    trusting = sentencepiece.SentencePieceProcessor(str(sentencepiece_folder / "tokenizer.model"))
    assert 106 in trusting.encode("a<start_of_turn>")
    library = tokenizers.Tokenizer.from_file(str(json_folder / "tokenizer.json"))
    library.encode_special_tokens = True
    assert 107 in library.encode("<end_of_turn>", add_special_tokens=False).ids


@pytest.mark.parametrize("literal", CONTROL)
def test_control_literals_are_ordinary_text(tokenizer: Tokenizer, literal: str):
    ids = tokenizer.encode(f"say {literal}{literal} now")
    assert not tokenizer.control_ids.intersection(ids)
    assert tokenizer.decode(ids) == f"say {literal}{literal} now"


@REPEATABLE
@given(text=any_text | hostile_text)
def test_any_text_round_trips_without_control_ids(tokenizer: Tokenizer, text: str):
    ids = tokenizer.encode(text)
    assert not tokenizer.control_ids.intersection(ids)
    assert tokenizer.decode(ids) == text


@REPEATABLE
@given(parts=st.lists(any_text | hostile_text, max_size=4))
def test_texts_encoded_apart_join_without_added_spaces(tokenizer: Tokenizer, parts: list[str]):
    assert tokenizer.decode([id_ for part in parts for id_ in tokenizer.encode(part)]) == "".join(parts)


def test_harmless_user_defined_pieces_stay_pieces(tokenizer: Tokenizer):
    assert len(tokenizer.encode("<table>")) == len(tokenizer.encode("\n\n")) == 1


def test_lone_surrogates_become_the_replacement_character(tokenizer: Tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud800b\udfff")) == "a\ufffdb\ufffd"


def test_overlapping_control_literals_are_all_broken():
    overlapping = fake(["a", "b", "aba", "bab", "ab"], marked={2, 3})
    assert overlapping.encode("ababab") == [0, 1, 0, 1, 4]


def test_an_escaped_control_id_is_an_error_not_a_gap():
    with pytest.raises(UserError, match="control id 2"):
        fake(["a", "b", "<x>"], marked={2}, encode=lambda text: [0, 2]).encode("anything")


def test_decode_says_nothing_for_control_ids_and_padding_rows(tokenizer: Tokenizer):
    ids = tokenizer.encode("one")
    assert tokenizer.decode([2, 106, *ids, 107, 1, 0, tokenizer.vocab_size, 10**6]) == "one"


def test_control_id_knows_control_pieces_only(tokenizer: Tokenizer):
    for piece in ("<table>", "<start_of_image>", ""):
        with pytest.raises(UserError, match="no control piece"):
            tokenizer.control_id(piece)


def test_check_accepts_padding_rows_and_refuses_too_few(tokenizer: Tokenizer):
    check_tokenizer(tokenizer, tokenizer.vocab_size)
    check_tokenizer(tokenizer, tokenizer.vocab_size + 64)
    with pytest.raises(UserError, match=f"{tokenizer.vocab_size} pieces but the model has {tokenizer.vocab_size - 1}"):
        check_tokenizer(tokenizer, tokenizer.vocab_size - 1)


def library(**changes) -> Tokenizer:
    base = {"pieces": {"a": 0, "b": 1, "c": 2}, "marked": frozenset(), "bos_id": 2, "eos_id": 1, "pad_id": 0}
    return Tokenizer("made up", Library(**{**base, **changes}, encode=lambda text: [], decode=lambda ids: ""))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bos_id": -1}, "no bos"),
        ({"eos_id": 3}, "no eos"),
        ({"pad_id": -1}, "no pad"),
        ({"pad_id": 1}, "must differ"),
        ({"marked": frozenset({7})}, "control id 7"),
    ],
)
def test_check_names_what_is_wrong(changes: dict, said: str):
    check_tokenizer(library(), 3)
    with pytest.raises(UserError, match=said):
        check_tokenizer(library(**changes), 3)


def test_a_folder_with_both_files_uses_sentencepiece(sentencepiece_folder: Path, json_folder: Path, tmp_path: Path):
    shutil.copy(sentencepiece_folder / "tokenizer.model", tmp_path)
    shutil.copy(json_folder / "tokenizer.json", tmp_path)
    assert load_tokenizer(tmp_path).name.endswith("tokenizer.model")


def test_special_tokens_of_one_character_are_text_too(json_folder: Path, tmp_path: Path):
    """They cannot be split, so the library itself has to be told."""
    data = json.loads((json_folder / "tokenizer.json").read_text())
    section = {**data["added_tokens"][0], "id": 460, "content": "§", "special": True}
    (tmp_path / "tokenizer.json").write_text(json.dumps({**data, "added_tokens": [*data["added_tokens"], section]}))
    tokenizer = load_tokenizer(tmp_path)
    assert 460 in tokenizer.control_ids
    assert tokenizer.decode(tokenizer.encode("a§b")) == "a§b"


def test_truncation_and_padding_of_the_file_are_ignored(json_folder: Path):
    assert len(load_tokenizer(json_folder).encode("zq" * 50)) == 100


def test_tokenizer_config_names_the_end_pieces(json_folder: Path, tmp_path: Path):
    shutil.copy(json_folder / "tokenizer.json", tmp_path)
    config = {"bos_token": "<mask>", "eos_token": {"content": "<2mass>"}, "pad_token": None, "auto_map": "evil.py"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (4, 5, 0)
    assert tokenizer.stop_ids == {5, 107}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (None, b"", "neither tokenizer.model nor tokenizer.json"),
        ("tokenizer.model", b"", "the file is empty"),
        ("tokenizer.model", b"version https://git-lfs.github.com/spec/v1", "no SentencePiece model"),
        ("tokenizer.json", b"{", "not JSON"),
        ("tokenizer.json", b"[" * 100_000, "not JSON"),
        ("tokenizer.json", b"\xff", "not JSON"),
        ("tokenizer.json", b"[]", "no JSON object"),
        ("tokenizer.json", b'{"model": 3}', "no Hugging Face tokenizer"),
    ],
)
def test_broken_folders_are_user_errors(tmp_path: Path, name: str | None, content: bytes, said: str):
    if name:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fault", ["dummy prefix", "no bytes", "normalization"])
def test_lossy_sentencepiece_is_refused(tmp_path: Path, fault: str):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e"] * 3),
        model_prefix=str(tmp_path / "tokenizer"),
        model_type="bpe",
        vocab_size=270 if fault != "no bytes" else 12,
        hard_vocab_limit=False,
        byte_fallback=fault != "no bytes",
        normalization_rule_name="nfkc" if fault == "normalization" else "identity",
        add_dummy_prefix=fault == "dummy prefix",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    with pytest.raises(UserError, match="changes the text"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"normalizer": {"type": "NFC"}},
        {"normalizer": {"type": "Prepend", "prepend": "x"}},
        {"decoder": {"type": "Fuse"}},
    ],
)
def test_lossy_json_is_refused(json_folder: Path, tmp_path: Path, change: dict):
    data = json.loads((json_folder / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**data, **change}))
    with pytest.raises(UserError, match="changes the text"):
        load_tokenizer(tmp_path)
