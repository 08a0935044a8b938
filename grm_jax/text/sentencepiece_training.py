"""Training of small, lossless SentencePiece tokenizers, laid out as Gemma's."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from grm_jax.errors import UserError

_TURN_MARKERS = ("<start_of_turn>", "<end_of_turn>")


def train_sentencepiece(
    sentences: Iterable[str], path: Path, vocab_size: int, user_defined: Sequence[str] = ()
) -> None:
    """Trains a byte-pair model of exactly `vocab_size` pieces and writes PATH/tokenizer.model.

    Ids: pad 0, eos 1, bos 2, unk 3, `<start_of_turn>` 4 and `<end_of_turn>` 5 (control pieces, never made from text),
    newline 6, then `user_defined` in their order, 256 bytes, and the learned pieces. Whitespace is kept as it is,
    digits stand alone, and a newline is always one piece, so no learned piece spans lines.

    The same sentences give the same bytes. Decoding gives back every text except U+2581, which comes back as a space,
    and lone surrogates. Raises UserError if the sentences cannot fill `vocab_size` pieces, or need more.
    """
    # Lone surrogates would stop the trainer.
    lines = [line for text in sentences for line in text.encode("utf-8", "replace").decode("utf-8").split("\n") if line]
    if not lines:
        raise UserError(f"{path}: there are no sentences to train a tokenizer on; give at least one")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            byte_fallback=True,
            character_coverage=1.0,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_digits=True,
            pad_id=0,
            eos_id=1,
            bos_id=2,
            unk_id=3,
            pad_piece="<pad>",
            eos_piece="<eos>",
            bos_piece="<bos>",
            unk_piece="<unk>",
            control_symbols=list(_TURN_MARKERS),
            # Inside pieces a space is written U+2581.
            user_defined_symbols=list(dict.fromkeys(["\n", *(piece.replace(" ", "\u2581") for piece in user_defined)])),
            # A sentence past the limit (in bytes, at least 10) would be left out without a word.
            max_sentence_length=max(10, *(len(line.encode()) + 1 for line in lines)),
            # Threads would add up counts in no fixed order.
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).rpartition("] ")[2].split())
        raise UserError(
            f"{path}: no tokenizer of {vocab_size} pieces fits these sentences; change vocab_size or the sentences"
            f" ({reason})"
        ) from None
    path.mkdir(parents=True, exist_ok=True)
    (path / "tokenizer.model").write_bytes(model.getvalue())
