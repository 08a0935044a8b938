"""From one model folder to another, of the other kind or in another dtype."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from grm_jax.checkpoints.files import new_model_folder
from grm_jax.checkpoints.folder import Kind, copy_side_files, kind
from grm_jax.checkpoints.huggingface import load_hugging_face, save_hugging_face
from grm_jax.checkpoints.orbax import load_orbax, save_orbax

Report = Callable[[str, int, int], None]  # stage, tensors done, tensors in all (0: unknown)


def convert(
    source: Path | str,
    target: Path | str,
    *,
    target_kind: Kind | None = None,
    dtype: Any = None,
    report: Report = lambda stage, done, total: None,
) -> Kind:
    """Writes the model in `source` to `target`, with its tokenizer and template files.

    Args:
        source: a model folder.
        target: a new folder, or one without a model in it.
        target_kind: the kind to write; None is the kind that `source` is not.
        dtype: float32 or bfloat16 for all weights (rounded to nearest even); None keeps the stored one.
        report: told what is done now and how far it is.

    Returns:
        The kind written.

    Raises:
        UserError: `source` is not a sound model, or `target` holds one already or cannot be written.
    """
    source_kind = kind(source)
    target_kind = target_kind or ("orbax" if source_kind == "huggingface" else "huggingface")
    new_model_folder(Path(target))  # before minutes are spent on reading
    report("reading", 0, 0)
    load = load_hugging_face if source_kind == "huggingface" else load_orbax
    config, params = load(source, dtype, partial(report, "reading"))
    report("writing", 0, 0)
    if target_kind == "huggingface":
        save_hugging_face(target, config, params, progress=partial(report, "writing"))
    else:
        save_orbax(target, config, params)
    copy_side_files(source, target)
    return target_kind
