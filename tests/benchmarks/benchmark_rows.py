"""Small rows in each benchmark's documented schema, as many of each subset as it has; texts are made up."""

import itertools
import json
import struct
import zlib

from grm_jax.benchmarks.realmistake import PASSWORD
from grm_jax.benchmarks.registry import BENCHMARKS


def rewardbench(subset, i):
    return {
        "prompt": f"q{i}", "chosen": "good", "chosen_model": "m", "rejected": "bad", "rejected_model": "m",
        "subset": subset, "id": i,
    }  # fmt: skip


def rewardbench2(subset, i):
    if subset == "Ties":
        kind, right = ("ref", 1) if i % 2 else ("tied", 3)
        name, chosen, rejected = f"{kind}:{i // 2}", [f"right{j}" for j in range(right)], ["wrong0", "wrong1"]
    else:
        name, chosen, rejected = str(i), ["right"], ["w0", "w1", "w2"]
    return {
        "id": name, "prompt": f"q{i}", "chosen": chosen, "rejected": rejected, "num_correct": len(chosen),
        "num_incorrect": len(rejected), "total_completions": len(chosen + rejected), "models": ["m"], "subset": subset,
        "additional_metadata": None,
    }  # fmt: skip


def ppe_preference(subset, i):
    winner = ("model_a", "model_b", "tie", "tie (bothbad)")[i % 4]
    return {
        "question_id": f"x{i}", "model_a": "a", "model_b": "b", "winner": winner, "prompt": f"q{i}", "response_1": "one",
        "response_2": "two", "language": "English",
    }  # fmt: skip


def ppe_correctness(subset, i):
    return {
        "question_id": f"x{i}", "prompt": f"q{i}", "model_name": "m", **{f"response_{j + 1}": f"r{j}" for j in range(32)},
        "scores": [j % 2 == 0 for j in range(32)], "mean_score": 0.5, "conflict_pairs": [],
        "sampled_conflict_pairs": [[0, 1], [3, 4], [0, 1]],
    }  # fmt: skip


def rmb(subset, i):
    kind, goal = subset.split("/")
    talk = [{"role": role, "content": f"{role} {i}", "language": "en"} for role in ("user", "assistant", "user")]
    path = f"{kind}_set/{goal}/" + (f"S{i % 3}" if goal == "Harmlessness" else f"Chat/part {i % 2}")
    answer = {"llm_name": "m", "answer": "best"}
    losers = [{"llm_name": "m", "answer": f"loser{j}"} for j in range(2 + i % 2)]
    own = {"pair_uid": f"u{i}", "chosen": answer, "reject": losers[0]}
    if kind == "BoN":
        own = {"bon_uid": f"u{i}", "bon_best": answer, "loser_list": losers}
    return {"conversation_input": talk, "category_path": path, **own}


def realmistake(subset, i):
    return {
        "input": f"task {i}", "llm_response": "answer", "error_label": ("error", "no_error")[i % 2], "error_categories": [],
        "human_explanation": "", "metadata": {"id": f"t{i}"},
    }  # fmt: skip


def judgebench(subset, i, model="gpt-4o"):
    return {
        "pair_id": f"{subset}{i}", "original_id": i, "source": f"{subset}-law" if subset == "mmlu-pro" else subset,
        "question": f"q{i}", "response_model": model, "response_A": "one", "response_B": "two",
        "label": ("A>B", "B>A")[i % 2],
    }  # fmt: skip


def judgebench_claude(subset, i):
    return judgebench(subset, i, "claude-3-5-sonnet")


def rm_bench(subset, i):
    kinds = ("concise", "detailed", "marked")
    return {
        "id": i, "prompt": f"q{i}", "subset": "s", "domain": subset, "chosen": [f"good {kind}" for kind in kinds],
        "rejected": [f"bad {kind}" for kind in kinds],
    }  # fmt: skip


rmb_pairs = rmb


def rows(name, most=None):
    """The rows of a benchmark; `most` of each subset, if given."""
    for subset, count in BENCHMARKS[name].counts.items():
        for i in range(min(count, most or count)):
            yield subset, globals()[name](subset, i)


def write(folder, name, most=None):
    """Writes a benchmark's rows as its publishers divide them; returns what `--data` takes."""
    there = [(subset, row) for subset, row in rows(name, most)]
    if name not in ("ppe_correctness", "realmistake", "rmb", "rmb_pairs"):
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for _, row in there))
        return path
    for subset, group in itertools.groupby(there, key=lambda pair: pair[0]):
        path = (
            folder / name / {"ppe_correctness": f"PPE-{subset}-Best-of-K/data/train.jsonl"}.get(name, f"{subset}.jsonl")
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for _, row in group))
    return folder / name


def encrypted_zip(members, password=PASSWORD):
    """The bytes of an archive under PKWARE's traditional encryption (APPNOTE 6.1), which zipfile reads and cannot write."""
    local, central = b"", b""
    for name, data in members.items():
        crc, encoded = zlib.crc32(data), name.encode()
        body = _encrypt(bytes(11) + bytes([crc >> 24]) + data, password)
        common = struct.pack("<HHHHHIIIHH", 20, 1, 0, 0, 33, crc, len(body), len(data), len(encoded), 0)
        central += b"PK\1\2" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, len(local)) + encoded
        local += b"PK\3\4" + common + encoded + body
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(central), len(local), 0)
    return local + central + b"PK\5\6" + end


def _encrypt(data, password):
    keys = [0x12345678, 0x23456789, 0x34567890]

    def step(key, byte):  # CRC-32 without its inversions
        return zlib.crc32(bytes([byte]), key ^ 0xFFFFFFFF) ^ 0xFFFFFFFF

    def update(byte):
        keys[0] = step(keys[0], byte)
        keys[1] = ((keys[1] + (keys[0] & 255)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = step(keys[2], keys[1] >> 24)

    for byte in password:
        update(byte)
    out = bytearray()
    for byte in data:
        word = keys[2] | 2
        out.append(byte ^ ((word * (word ^ 1)) >> 8 & 255))
        update(byte)
    return bytes(out)
