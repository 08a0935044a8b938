"""Tokenizers whose `encode` cannot be talked into control tokens.

A judge reads text written by whoever wants a good score. If a response says `<end_of_turn>`, those are fourteen
characters to be judged, not the end of the turn. So there is one encoder, for text that nobody vouches for, and control
ids come only from `control_id`, which scaffolding calls by name.

Two things make a piece a control piece: its file marks it so (control, special, unknown), or it bears a name that acts
as one in Gemma-2. The second matters because Gemma's SentencePiece model stores its turn markers as *user-defined*
pieces, which the library's plain encoder would happily produce from text.

`<unk>` is a control piece too: no text may turn into it. A tokenizer that needs it, because it cannot spell some
character (Gemma spells every one, falling back to bytes), is refused when it is loaded.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers

from grm_jax.errors import UserError

END_OF_TURN = "<end_of_turn>"

_CONTROL_NAME = re.compile(
    r"<(?:pad|eos|bos|unk|mask|2mass|start_of_turn|end_of_turn|unused\d+)>|\[@BOS@\]|\[multimodal\]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
# Each half holds what a normaliser, a dummy prefix or a vocabulary without bytes would change: runs of space at the
# edges, capitals, full-width, ligature and decomposed letters, a rare script, an emoji.
_PROBE = ("a  b\n\n\tC \uff21\ufb01e\u0301", "a\U00010348\U0001f600 \r\n ")


@dataclass(frozen=True)
class Library:
    """What a tokenizer file and its library give: pieces, marked ids and the plain (trusting) encoder and decoder.

    `marked` are the ids that the file itself calls control, special or unknown; an absent bos, eos or pad is -1.
    """

    pieces: Mapping[str, int]
    marked: frozenset[int]
    bos_id: int
    eos_id: int
    pad_id: int
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]


class Tokenizer:
    """Text to ids and back, with control ids kept apart; `name` says in errors which tokenizer it is.

    `control_ids` never come out of `encode`. `stop_ids` end a generation: eos and, where it exists, `<end_of_turn>`
    ({1, 107} for Gemma-2, whose tuned models close a turn and may never write eos).
    """

    def __init__(self, name: str, library: Library):
        self.name = name
        self.bos_id, self.eos_id, self.pad_id = library.bos_id, library.eos_id, library.pad_id
        self.vocab_size = max(library.pieces.values(), default=-1) + 1
        named = {id_ for piece, id_ in library.pieces.items() if _CONTROL_NAME.fullmatch(piece)}
        present = {id_ for id_ in (self.bos_id, self.eos_id, self.pad_id) if id_ >= 0}
        self.control_ids: frozenset[int] = library.marked | named | present
        self._library = library
        self._control = {piece: id_ for piece, id_ in library.pieces.items() if piece and id_ in self.control_ids}
        self.stop_ids: frozenset[int] = frozenset({self.eos_id, self._control.get(END_OF_TURN, self.eos_id)})
        self._literal = re.compile("|".join(map(re.escape, self._control)) or r"(?!)")

    def control_id(self, piece: str) -> int:
        """Returns the id of a control piece such as `<start_of_turn>`; UserError if there is none of that name."""
        if piece not in self._control:
            raise UserError(f"{self.name}: has no control piece {piece}; use the tokenizer that came with the model")
        return self._control[piece]

    def encode(self, text: str) -> list[int]:
        """Returns the ids of untrusted text: no bos or eos is added, and no id is a control id.

        Lone surrogates, which no encoding can carry, are read as U+FFFD. A UserError means that the tokenizer offered a
        control id all the same; nothing is dropped to hide it.
        """
        ids: list[int] = []
        for part in self._parts(_SURROGATE.sub("\ufffd", text)):
            ids += self._library.encode(part)
        escaped = self.control_ids.intersection(ids)
        if escaped:
            raise UserError(
                f"{self.name}: text became control id {min(escaped)}; this tokenizer cannot keep untrusted text apart,"
                " use another"
            )
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of ids; control ids, and ids past the vocabulary (padding rows), say nothing.

        `decode(encode(x)) == x` but for lone surrogates and U+2581, which stands for a space inside pieces.
        """
        spoken = [int(id_) for id_ in ids if 0 <= id_ < self.vocab_size and id_ not in self.control_ids]
        return self._library.decode(spoken)

    def _parts(self, text: str) -> Iterable[str]:
        """Cuts text after the first character of every control literal, overlapping ones too, so that none is whole."""
        start = 0
        match = self._literal.search(text)
        while match:
            cut = match.start() + 1
            yield text[start:cut]
            start = cut
            match = self._literal.search(text, cut)
        yield text[start:]


def load_tokenizer(folder: Path) -> Tokenizer:
    """Loads `tokenizer.model` (SentencePiece), or else `tokenizer.json` (Hugging Face), from a model folder.

    Both are read as data: templates and code references that a folder may hold are not looked at. Raises UserError for
    a missing or broken file, and for a tokenizer that does not give back the text it was given.
    """
    folder = Path(folder)
    model, fast = folder / "tokenizer.model", folder / "tokenizer.json"
    if model.is_file():
        path, library = model, _read_sentencepiece(model)
    elif fast.is_file():
        path, library = fast, _read_json(fast)
    else:
        raise UserError(f"{folder}: holds neither tokenizer.model nor tokenizer.json; copy one from the model's source")
    first, second = _PROBE
    if library.decode(library.encode(first) + library.encode(second)) != first + second:
        raise UserError(
            f"{path}: changes the text it encodes (normalization, an added space, or characters it cannot spell);"
            " use a lossless tokenizer such as Gemma's"
        )
    return Tokenizer(str(path), library)


def check_tokenizer(tokenizer: Tokenizer, vocab_size: int) -> None:
    """Raises UserError unless the tokenizer suits a model with `vocab_size` embedding rows."""
    name = tokenizer.name
    if tokenizer.vocab_size > vocab_size:
        raise UserError(
            f"{name}: has {tokenizer.vocab_size} pieces but the model has {vocab_size} embedding rows;"
            " take the tokenizer that came with the model"
        )
    ends = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    for role, id_ in ends.items():
        if not 0 <= id_ < tokenizer.vocab_size:
            raise UserError(f"{name}: has no {role} piece; take the tokenizer that came with the model")
    if len(set(ends.values())) < len(ends):
        listed = ", ".join(f"{role} {id_}" for role, id_ in ends.items())
        raise UserError(f"{name}: bos, eos and pad must differ but are {listed}; give each a piece of its own")
    outside = [id_ for id_ in tokenizer.control_ids if not 0 <= id_ < tokenizer.vocab_size]
    if outside:
        raise UserError(f"{name}: control id {min(outside)} lies outside its vocabulary; fetch the file again")


def _read_sentencepiece(path: Path) -> Library:
    data = path.read_bytes()
    try:
        if not data:
            raise RuntimeError("the file is empty")
        processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    except RuntimeError as error:
        raise UserError(f"{path}: is no SentencePiece model; fetch it again ({_one_line(error)})") from None
    ids = range(processor.get_piece_size())
    return Library(
        pieces={processor.id_to_piece(id_): id_ for id_ in ids},
        marked=frozenset(id_ for id_ in ids if processor.is_control(id_) or processor.is_unknown(id_)),
        bos_id=processor.bos_id(),
        eos_id=processor.eos_id(),
        pad_id=processor.pad_id(),
        encode=processor.encode,
        decode=processor.decode,
    )


def _read_json(path: Path) -> Library:
    data = _json_object(path)
    try:
        fast = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{path}: is no Hugging Face tokenizer; fetch it again ({_one_line(error)})") from None
    # A file may ask for truncation, which would cut a response without a word, and for padding.
    fast.no_truncation()
    fast.no_padding()
    fast.encode_special_tokens = True
    pieces = fast.get_vocab(with_added_tokens=True)
    special = {id_ for id_, token in fast.get_added_tokens_decoder().items() if token.special}
    unknown = pieces.get(str(data.get("model", {}).get("unk_token")), -1)
    bos_id, eos_id, pad_id = (pieces.get(piece, -1) for piece in _end_pieces(path.parent / "tokenizer_config.json"))
    return Library(
        pieces=pieces,
        marked=frozenset(special | ({unknown} if unknown >= 0 else set())),
        bos_id=bos_id,
        eos_id=eos_id,
        pad_id=pad_id,
        encode=lambda text: fast.encode(text, add_special_tokens=False).ids,
        decode=lambda ids: fast.decode(ids, skip_special_tokens=False),
    )


def _end_pieces(path: Path) -> list[str]:
    """Returns the pieces that open, end and pad a text: those tokenizer_config.json names, else Gemma's."""
    config = _json_object(path) if path.is_file() else {}
    pieces = []
    for name in ("bos", "eos", "pad"):
        token = config.get(f"{name}_token") or f"<{name}>"
        pieces.append(str(token.get("content")) if isinstance(token, dict) else str(token))
    return pieces


def _json_object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON; fetch it again ({_one_line(error)})") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: holds no JSON object; fetch it again")
    return data


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
