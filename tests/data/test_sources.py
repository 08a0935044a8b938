"""Rows from files and from data set libraries, which are imported only when used and missed by name."""

import gzip
import importlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from grm_jax.data.jsonl import write_jsonl
from grm_jax.data.sources import open_source
from grm_jax.errors import UserError

ROWS = [{"prompt": f"p{i} é", "n": i, "tags": ["a"] * i} for i in range(7)]


def rows_of(spec):
    source = open_source(str(spec))
    assert [source[i] for i in reversed(range(len(source)))] == [source[i] for i in range(len(source))][::-1]
    with pytest.raises(IndexError):
        source[len(source)]
    return [source[np.int64(i)] for i in range(len(source))]


def test_json_lines_are_read_by_place_whatever_stands_between(tmp_path):
    lines = [json.dumps(row, ensure_ascii=False).encode() for row in ROWS]
    text = b"\xef\xbb\xbf" + lines[0] + b"\n\n" + lines[1] + b"\r\n  \n" + b"\n".join(lines[2:])
    (tmp_path / "a.jsonl").write_bytes(text)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text))
    for name in ("a.jsonl", "a.jsonl.gz"):
        assert rows_of(tmp_path / name) == ROWS
        source = open_source(str(tmp_path / name))
        assert [source.where(i) for i in (0, 1, 2)] == [f"{tmp_path / name}:{line}" for line in (1, 3, 5)]
    (tmp_path / "a.json").write_text(json.dumps(ROWS), encoding="utf-8")
    assert rows_of(tmp_path / "a.json") == ROWS


def test_threads_read_the_same_rows(tmp_path):
    rows = [{"i": i, "text": "x" * (i % 97)} for i in range(2000)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(open_source(str(tmp_path / "a.jsonl")).__getitem__, range(2000))) == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "none.jsonl: no such file; check the path"),
        ("none.parquet", None, "none.parquet: no such file"),
        ("none", None, "none: no such file; give a .jsonl"),
        ("a.csv", b"a,b", "a.csv: is of no known kind; give a .jsonl"),
        ("a.jsonl", b"", "a.jsonl: holds no rows"),
        ("a.jsonl", b"\xef\xbb\xbf \n", "a.jsonl: holds no rows"),
        ("a.json", b"[]", "a.json: holds no rows"),
        ("a.json", b"{}", "a.json: holds no array"),
        ("a.jsonl.gz", b"{}", "a.jsonl.gz: is no whole gzip file"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 99)[:-9], "a.jsonl.gz: is no whole gzip file"),
    ],
)
def test_what_cannot_be_opened_is_refused_in_one_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        open_source(str(tmp_path / name))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_broken_line_is_refused_with_its_number_when_it_is_read(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n\n{"a": \n')
    source = open_source(str(tmp_path / "a.jsonl"))
    assert source[0] == {"a": 1}
    with pytest.raises(UserError, match=r"a.jsonl:3: not valid JSON"):
        source[1]


def test_parquet_files_and_folders(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS[:4]), tmp_path / "part-0.parquet", row_group_size=2)
    parquet.write_table(pyarrow.Table.from_pylist(ROWS[4:]), tmp_path / "part-1.parquet")
    assert rows_of(tmp_path) == ROWS  # in the order of their names
    assert rows_of(tmp_path / "part-1.parquet") == ROWS[4:]
    assert open_source(str(tmp_path)).where(2) == f"{tmp_path} row 2"
    (tmp_path / "part-2.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="is not Parquet of one layout"):
        open_source(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"is a folder without \.parquet files"):
        open_source(str(tmp_path / "empty"))


def test_hugging_face_data_from_local_folders(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets = importlib.import_module("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": data, "test": data.select(range(2))}).save_to_disk(tmp_path / "several")
    (tmp_path / "files").mkdir()
    write_jsonl(tmp_path / "files" / "train.jsonl", ROWS)
    for name in ("one", "several", "files"):
        assert rows_of(f"hf:{tmp_path / name}") == ROWS
    assert rows_of(f"hf:{tmp_path / 'several'}:test") == ROWS[:2]
    with pytest.raises(UserError, match=r"several:valid: cannot be read .*; check id, revision and split") as error:
        open_source(f"hf:{tmp_path / 'several'}:valid")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        ("hf:a/b", {"path": "a/b", "data_dir": None, "revision": None, "split": "train"}),
        ("hf:a/b@v2:test[:9]", {"path": "a/b", "data_dir": None, "revision": "v2", "split": "test[:9]"}),
        ("hf:a/b/c/d:x", {"path": "a/b", "data_dir": "c/d", "revision": None, "split": "x"}),
        ("hf:squad:x", {"path": "squad", "data_dir": None, "revision": None, "split": "x"}),
    ],
)
def test_what_a_hugging_face_spec_asks_the_hub_for(spec, asked, monkeypatch):
    class Hub:
        def load_dataset(self, path, **options):
            assert {"path": path, **options} == asked
            return ROWS

    monkeypatch.setitem(sys.modules, "datasets", Hub())
    assert rows_of(spec) == ROWS


def test_tfds_data_is_read_without_tensorflow(tmp_path):
    pytest.importorskip("array_record")
    # The proof is that this runs where the extra `data` is installed, which brings no TensorFlow.
    tfds = pytest.importorskip("tensorflow_datasets")

    class GrmJaxRows(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            text, tags = tfds.features.Text(), tfds.features.Sequence(tfds.features.Text())
            numbers = tfds.features.Scalar(dtype=np.int64), tfds.features.Tensor(shape=(2,), dtype=np.float32)
            features = {"prompt": text, "n": numbers[0], "pair": numbers[1], "tags": tags}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples(), "test": self._generate_examples()}

        def _generate_examples(self):
            yield from enumerate(stored)

    stored = [{**row, "pair": [0.5, row["n"]]} for row in ROWS]
    tfds.disable_progress_bar()
    GrmJaxRows(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    rows = rows_of(f"tfds:grm_jax_rows@{tmp_path}")
    assert sorted(rows, key=lambda row: row["n"]) == stored
    assert all(type(row["n"]) is int and type(row["prompt"]) is str for row in rows)
    assert len(rows_of(f"tfds:grm_jax_rows:test[:3]@{tmp_path}")) == 3
    with pytest.raises(UserError, match=r"cannot be read .*; check name, split and folder"):
        open_source(f"tfds:no_such_rows@{tmp_path}")


@pytest.mark.parametrize(
    ("spec", "module", "pip"),
    [
        ("rows.parquet", "pyarrow", "pip install pyarrow"),
        ("hf:a/b", "datasets", "pip install datasets"),
        ("tfds:a", "tensorflow_datasets", "pip install tensorflow-datasets array_record importlib_resources"),
        ("tfds:a", "importlib_resources", "pip install tensorflow-datasets array_record importlib_resources"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(spec, module, pip, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=f"{spec}: needs a package that is missing .*{pip}$"):
        open_source(spec)
