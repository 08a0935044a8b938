from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grm_jax.errors import UserError
from grm_jax.text.sentencepiece_training import train_sentencepiece
from grm_jax.text.tokenizer import Tokenizer, check_tokenizer, load_tokenizer

SENTENCES = ["sort: fork bread\nlamp 1234", "reverse  the   words\t!", "bread bread 12 fork fork"] * 4
SIZE = 310


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("trained") / "new" / "folder"
    train_sentencepiece(SENTENCES, folder, SIZE, ["Response 1: ", "user"])
    return load_tokenizer(folder)


def test_layout(trained: Tokenizer):
    check_tokenizer(trained, SIZE)
    assert trained.vocab_size == SIZE
    assert (trained.pad_id, trained.eos_id, trained.bos_id) == (0, 1, 2)
    pieces = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
    assert [trained.control_id(piece) for piece in pieces] == list(range(6))
    assert trained.control_ids == set(range(6))
    assert trained.stop_ids == {1, 5}
    assert [trained.encode(text) for text in ("\n", "Response 1: ", "user")] == [[6], [7], [8]]


@settings(derandomize=True, database=None, deadline=None, max_examples=300)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=60))
def test_lossless(trained: Tokenizer, text: str):
    ids = trained.encode(text)
    assert trained.decode(ids) == text
    assert not trained.control_ids.intersection(ids)


def test_what_is_not_lossless(trained: Tokenizer):
    assert trained.decode(trained.encode("a\u2581b\ud800")) == "a b\ufffd"


def test_digits_stand_alone_and_words_are_learned(trained: Tokenizer):
    assert len(trained.encode("1234")) == 4
    assert len(trained.encode(" bread fork")) == 2


def test_the_same_sentences_give_the_same_bytes(tmp_path: Path):
    for name in "ab":
        train_sentencepiece(iter(SENTENCES), tmp_path / name, SIZE)
    assert (tmp_path / "a/tokenizer.model").read_bytes() == (tmp_path / "b/tokenizer.model").read_bytes()


def test_long_and_odd_sentences_are_learned_from(tmp_path: Path):
    """The trainer by itself leaves out sentences over 4,192 bytes and stops at lone surrogates."""
    train_sentencepiece([" zebra" * 2000, " quail\0 quail quail\ud800 quail"], tmp_path, 285)
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer.encode(" zebra")) == len(tokenizer.encode(" quail")) == 1


@pytest.mark.parametrize(
    ("sentences", "size", "said"),
    [
        (["a b"], 100, "smaller than"),
        (["a b"], 5000, "too high"),
        ([], 300, "no sentences"),
        (["\n"], 300, "no sentences"),
    ],
)
def test_sizes_that_do_not_fit_are_user_errors(tmp_path: Path, sentences: list[str], size: int, said: str):
    with pytest.raises(UserError, match=said) as error:
        train_sentencepiece(sentences, tmp_path, size)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "tokenizer.model").exists()
