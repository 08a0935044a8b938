"""A report of a run that is not finished says where its table stops."""

import json

from grm_jax.cli import main


def test_the_smallest_number_of_samples_is_named(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"model": "m", "template": "t", "seed": 0}) + "\n")
    item = {"n": 2, "label": 0, "domain": None, "digest": "d"}
    sample = {
        "order": [0, 1], "text": "", "principles": [], "scores": [9, 1], "outcome": "ok", "tokens": 1,
        "logprob": -1.0, "meta_score": None, "seed": 0,
    }  # fmt: skip
    (run / "items.jsonl").write_text("".join(json.dumps({"id": name, **item}) + "\n" for name in "ab"))
    lines = [{"id": "a", "index": i, **sample} for i in range(4)] + [{"id": "b", "index": 0, **sample}]
    (run / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["report", str(run)]) == 0
    assert "items have 1 to 4 samples: the table stops at 1" in capsys.readouterr().err
    assert main(["report", str(run), "--k", "1"]) == 0
    assert capsys.readouterr().err == ""
