"""Where rows come from: files, TFDS and Hugging Face data sets, all as random access to plain JSON-like objects.

A source is what `grain.MapDataset.source` takes. The libraries behind it are imported when one is opened, no sooner.
"""

import codecs
import gzip
import importlib
import io
import os
import re
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from grm_jax.data.jsonl import parse_line
from grm_jax.errors import UserError

FORMS = (
    "a .jsonl, .jsonl.gz, .json or .parquet file, a folder of .parquet files, tfds:NAME[:SPLIT][@DATA_DIR]"
    " or hf:ID[/DATA_DIR][@REVISION][:SPLIT]"
)
"""What `open_source` understands, for messages."""


class Source:
    """Rows by index: `len(source)`, `source[i]` (i from 0), and `where(i)`, which names row i in messages.

    Reading is safe from several threads.
    """

    def __init__(self, rows: Sequence[Any], read: Callable[[Any, int], Any], where: Callable[[int], str]):
        self._rows, self._read, self.where = rows, read, where

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._read(self._rows, int(index))


def open_source(spec: str) -> Source:
    """Opens rows by what they are called (`FORMS`).

    A JSONL file is read by byte offsets, so only those are held in memory; a compressed one and a Parquet file are held
    whole. `tfds:` is read with `tfds.data_source`, without TensorFlow: the data set must be prepared as array_record or
    Parquet. `hf:` also takes a local folder, one written by `save_to_disk` included. SPLIT is "train" unless given.

    Raises:
        UserError: what is missing, where, and what to do.
    """
    if spec.startswith("tfds:"):
        source = _open_tfds(spec)
    elif spec.startswith("hf:"):
        source = _open_hugging_face(spec)
    else:
        source = _open_path(spec)
    if not len(source):
        raise UserError(f"{spec}: holds no rows; check that it is the right file or split")
    return source


def _open_path(spec: str) -> Source:
    path = Path(spec)
    try:
        if path.is_dir():
            files = sorted(path.glob("*.parquet"))
            if not files:
                raise UserError(f"{spec}: is a folder without .parquet files; give {FORMS}")
            return _open_parquet(spec, files)
        if path.name.endswith((".jsonl", ".jsonl.gz")):
            return _open_json_lines(path)
        if path.suffix == ".json":
            rows = parse_line(path.read_bytes().removeprefix(codecs.BOM_UTF8), spec)
            if not isinstance(rows, list):
                raise UserError(f"{spec}: holds no array; write one array of objects, or a .jsonl file")
            return _by_row(spec, rows, _item)
        if path.suffix == ".parquet":
            path.open("rb").close()
            return _open_parquet(spec, [path])
    except FileNotFoundError:
        raise UserError(f"{spec}: no such file; check the path") from None
    except OSError as error:
        raise UserError(f"{spec}: cannot be read ({error.strerror or error}); check the file") from None
    if path.exists():
        raise UserError(f"{spec}: is of no known kind; give {FORMS}")
    raise UserError(f"{spec}: no such file; give {FORMS}")


def _open_json_lines(path: Path) -> Source:
    file: BinaryIO = path.open("rb")
    if path.suffix == ".gz":
        try:
            file = io.BytesIO(gzip.decompress(file.read()))
        except (EOFError, gzip.BadGzipFile) as error:
            raise UserError(f"{path}: is no whole gzip file ({error}); fetch it again") from None
    starts, ends, numbers = array("q"), array("q"), array("q")
    place = 0
    for number, line in enumerate(file, 1):
        text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        place += len(line)
        if text.strip():
            starts.append(place - len(text))
            ends.append(place)
            numbers.append(number)

    def where(index: int) -> str:
        return f"{path}:{numbers[index]}"

    def read(_: Any, index: int) -> Any:
        start, size = starts[index], ends[index] - starts[index]
        if isinstance(file, io.BytesIO):
            return parse_line(bytes(file.getbuffer()[start : start + size]), where(index))
        return parse_line(os.pread(file.fileno(), size, start), where(index))  # unlike seek and read, safe in threads

    return Source(starts, read, where)


def _open_parquet(spec: str, files: Sequence[Path]) -> Source:
    pyarrow = _import("pyarrow", spec, "pyarrow")
    parquet = _import("pyarrow.parquet", spec, "pyarrow")
    try:
        table = pyarrow.concat_tables([parquet.read_table(file) for file in files]).combine_chunks()
    except pyarrow.ArrowException as error:
        raise UserError(f"{spec}: is not Parquet of one layout ({_one_line(error)}); fetch it again") from None
    return _by_row(spec, table, lambda rows, index: rows.slice(index, 1).to_pylist()[0])


def _open_tfds(spec: str) -> Source:
    name, _, data_dir = spec.removeprefix("tfds:").partition("@")
    name, _, split = name.partition(":")
    for module in ("array_record.python.array_record_module", "importlib_resources"):
        _import(module, spec, "tensorflow-datasets array_record importlib_resources")
    tfds = _import("tensorflow_datasets", spec, "tensorflow-datasets array_record importlib_resources")
    try:
        rows = tfds.data_source(name, split=split or "train", data_dir=data_dir or None)
    except Exception as error:  # builders raise whatever they like
        remedy = "check name, split and folder, and that it was prepared as array_record"
        raise UserError(f"{spec}: cannot be read ({_one_line(error)}); {remedy}") from error
    return _by_row(spec, rows, lambda rows, index: _plain(rows[index]))


def _open_hugging_face(spec: str) -> Source:
    name, _, split = spec.removeprefix("hf:").partition(":")
    name, _, revision = name.partition("@")
    datasets = _import("datasets", spec, "datasets")
    split = split or "train"
    try:
        if (Path(name) / "dataset_dict.json").is_file():
            rows = datasets.load_from_disk(name)[split]
        elif (Path(name) / "state.json").is_file():
            rows = datasets.load_from_disk(name)
        elif Path(name).exists():
            rows = datasets.load_dataset(name, split=split)
        else:
            parts = re.fullmatch(r"([^/]+(?:/[^/]+)?)(?:/(.+))?", name)
            identity, data_dir = parts.groups() if parts else (name, None)
            rows = datasets.load_dataset(identity, data_dir=data_dir, revision=revision or None, split=split)
    except Exception as error:  # the hub's, the file system's, or a builder's
        remedy = "check id, revision and split, and that it was downloaded"
        raise UserError(f"{spec}: cannot be read ({_one_line(error)}); {remedy}") from error
    return _by_row(spec, rows, _item)


def _by_row(spec: str, rows: Any, read: Callable[[Any, int], Any]) -> Source:
    return Source(rows, read, lambda index: f"{spec} row {index}")


def _item(rows: Any, index: int) -> Any:
    return rows[index]


def _plain(value: Any) -> Any:
    """What TFDS gives (bytes and arrays), as JSON has it."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return _plain(value.tolist()) if hasattr(value, "tolist") else value


def _import(module: str, spec: str, packages: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{spec}: needs a package that is missing ({error.name}); pip install {packages}") from None


def _one_line(error: Exception) -> str:
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= 200 else line[:197] + "..."
