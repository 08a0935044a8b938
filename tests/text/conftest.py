"""Two small tokenizers laid out as Gemma-2's, one of each file kind, in which text could become control tokens."""

import io
import json
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, trainers

from grm_jax.text.tokenizer import load_tokenizer

ENDS = ["<pad>", "<eos>", "<bos>", "<unk>"]
# Ids 4 to 108, as in Gemma-2's vocabulary, all of them user-defined pieces there.
USER_DEFINED = [
    *("<mask>", "<2mass>", "[@BOS@]"),
    *(f"<unused{number}>" for number in range(99)),
    *("<start_of_turn>", "<end_of_turn>", "\n"),
]
HARMLESS = ["\n\n", "<table>"]
SENTENCES = [
    "the quick brown fox jumps over 12 lazy dogs",
    "Response one is <b>better</b> than response two, it says user and model",
    "    return start_of_turn + end_of_turn",
] * 3


@pytest.fixture(scope="session")
def sentencepiece_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=model,
        model_type="bpe",
        vocab_size=460,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_digits=True,
        **{
            f"{piece[1:-1]}_{key}": value
            for id_, piece in enumerate(ENDS)
            for key, value in (("id", id_), ("piece", piece))
        },
        user_defined_symbols=[*USER_DEFINED, "[multimodal]", *HARMLESS],
        num_threads=1,
        minloglevel=2,
    )
    folder = tmp_path_factory.mktemp("sentencepiece")
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    return folder


@pytest.fixture(scope="session")
def json_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    library.normalizer = normalizers.Replace(" ", "\u2581")
    library.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    added = [*USER_DEFINED, "[multimodal]", *HARMLESS]
    pieces = [*ENDS, *added, *(f"<0x{byte:02X}>" for byte in range(256))]
    library.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=460, special_tokens=pieces, show_progress=False)
    )
    data = json.loads(library.to_str())
    # Bytes are pieces but no added tokens; of the added ones, only some are special, as in the files people share.
    data["added_tokens"] = [
        {**token, "special": token["content"] in (*ENDS, "<start_of_turn>")}
        for token in data["added_tokens"]
        if not token["content"].startswith("<0x")
    ]
    # A file may come with these switched on.
    data["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    data["padding"] = {
        "strategy": {"Fixed": 9},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    }
    folder = tmp_path_factory.mktemp("json")
    (folder / "tokenizer.json").write_text(json.dumps(data))
    return folder


@pytest.fixture(scope="session", params=["sentencepiece", "json"])
def tokenizer(request: pytest.FixtureRequest):
    return load_tokenizer(request.getfixturevalue(f"{request.param}_folder"))
