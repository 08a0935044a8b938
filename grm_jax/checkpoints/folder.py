"""A model folder of either kind."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from grm_jax.checkpoints.files import ORBAX_PARAMS, inside, replacing, replacing_folder
from grm_jax.checkpoints.huggingface import hugging_face_leaves, load_hugging_face, save_hugging_face
from grm_jax.checkpoints.orbax import load_orbax, orbax_leaves
from grm_jax.checkpoints.safetensors_io import has_safetensors, read_headers, read_samples
from grm_jax.checkpoints.tree import Leaves, Params
from grm_jax.errors import UserError
from grm_jax.model.config import Gemma2Config
from grm_jax.model.projections import Form
from grm_jax.parallel import hosts
from grm_jax.parallel.layout import Layout

Kind = Literal["huggingface", "orbax"]

SIDE_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "template.toml",
)

_RUNS, _RUN = 5, 128  # runs of elements read from each safetensors tensor, elements in a run
_BLOCKS, _BLOCK = 16, 4096  # blocks read from each Orbax file, bytes in a block


def kind(path: Path | str) -> Kind:
    """Tells which kind of model a folder holds, by the names of its files.

    Raises:
        UserError: there is no folder, no model in it (or only a pickled one), or two.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such model folder; give the folder that holds config.json and the weights")
    orbax = (path / ORBAX_PARAMS).is_dir()
    if orbax and has_safetensors(path):
        raise UserError(f"{path}: holds both safetensors and {ORBAX_PARAMS}/; remove the one that is not the model")
    if orbax:
        return "orbax"
    read_headers(path)
    return "huggingface"


def load_params(
    path: Path | str,
    dtype: Any = None,
    layout: Layout | None = None,
    *,
    unrolled: bool = False,
    form: Form | None = None,
) -> tuple[Gemma2Config, Params]:
    """Loads a model of either kind: `load_hugging_face` or `load_orbax`.

    Args:
        path: a model folder.
        dtype: float32 or bfloat16 for all leaves; None keeps the stored one.
        layout: where the leaves are to live, on a mesh or one device; None for numpy arrays.
        unrolled: the tree of an unrolled model instead (`model.gemma2.unroll`).
        form: what projections become (`model.projections`), as jax arrays. One leaf at a time is held as it was read beside them.

    Returns:
        The config and the parameter tree.

    Raises:
        UserError: as the two.
    """
    load = {"huggingface": load_hugging_face, "orbax": load_orbax}[kind(path)]
    return load(path, dtype, layout=layout, unrolled=unrolled, form=form)


def leaves(path: Path | str) -> tuple[Gemma2Config, Leaves]:
    """Shape and dtype of every leaf that `load_params` would return, without reading weights.

    Raises:
        UserError: as `load_params`, except for what only the weights themselves can show.
    """
    read = {"huggingface": hugging_face_leaves, "orbax": orbax_leaves}[kind(path)]
    return read(path)


def fingerprint(path: Path | str) -> str:
    """Names a model by 32 hexadecimal digits that a copy of the folder keeps and another model does not have.

    It hashes the config, the names, shapes and dtypes of the tensors, and samples of the weights (some kilobytes of
    each tensor; of each file for Orbax). So it tells trainings apart, but does not prove that all weights are equal.
    Sharding does not matter. The kind of folder does, and an Orbax model that is saved again gets a new name.

    Raises:
        UserError: the folder does not hold a model.
    """
    path = Path(path)
    config, _ = leaves(path)
    model_kind = kind(path)
    hasher = hashlib.blake2b(digest_size=16)
    hasher.update(json.dumps([model_kind, dataclasses.asdict(config)], sort_keys=True).encode())
    if model_kind == "huggingface":
        headers = dict(sorted(read_headers(path).items()))
        samples = dict.fromkeys(headers, b"")
        for name, data in read_samples(headers, _RUNS, _RUN):
            samples[name] += data
        described: list[object] = [[name, header.shape, header.dtype] for name, header in headers.items()]
    else:
        files = {p.relative_to(path).as_posix(): p for p in (path / ORBAX_PARAMS).rglob("*") if p.is_file()}
        samples = {name: _blocks(files[name]) for name in sorted(files)}
        described = [[name, files[name].stat().st_size] for name in samples]
    hasher.update(json.dumps(described).encode())
    for data in samples.values():
        hasher.update(data)
    return hasher.hexdigest()


def copy_side_files(source: Path | str, target: Path | str) -> list[str]:
    """Copies tokenizer, generation settings and prompt template to another model folder; returns the names copied.

    Raises:
        UserError: one of them is a link that leaves the folder, or cannot be written.
    """
    source, target = Path(source), Path(target)
    names = [name for name in SIDE_FILES if os.path.lexists(source / name)]
    for name in names:
        with replacing(target / name) as temporary:
            shutil.copyfile(inside(source, name), temporary)
    return names


def save_trained(
    folder: Path,
    config: Gemma2Config,
    params: Mapping[str, Any],
    source: Path,
    template: str,
    *,
    dtype: Any = None,
    also: Callable[[Path], None] = lambda folder: None,
) -> Path:
    """Saves a model that was trained, in the Hugging Face form with all that a judge needs; what `folder` held is replaced.

    Of several processes all call it, and process 0 writes.

    Args:
        folder: appears whole or not at all (`replacing_folder`).
        config: the shape.
        params: numpy or jax arrays, float32 or bfloat16.
        source: a model folder to take the tokenizer and generation settings from.
        template: TOML text of the template it was trained with.
        dtype: of the weights; None keeps them as they are.
        also: writes what else the folder is to hold.

    Returns:
        The folder.

    Raises:
        UserError: as `save_hugging_face` and `copy_side_files`.
    """
    with replacing_folder(folder) if hosts.is_leader() else contextlib.nullcontext(folder) as partial:
        save_hugging_face(partial, config, params, dtype=dtype)
        if hosts.is_leader():
            copy_side_files(source, partial)
            (partial / "template.toml").write_text(template, encoding="utf-8")
            also(partial)
    hosts.wait("a saved model")
    return folder


def _blocks(path: Path) -> bytes:
    """Blocks spread evenly over a file; the whole file if it is small."""
    size = path.stat().st_size
    with path.open("rb") as f:
        if size <= _BLOCKS * _BLOCK:
            return f.read()
        data = b""
        for i in range(_BLOCKS):
            f.seek((size - _BLOCK) * i // (_BLOCKS - 1))
            data += f.read(_BLOCK)
        return data
