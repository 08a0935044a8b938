"""A program: loads a model folder, makes a sampler of it or saves it again, and prints as JSON what that took beside the arrays.

    python memory_use.py FOLDER float32|bfloat16|int8 DATA FSDP TENSOR train|decode [TARGET]

What counts is anonymous memory (RssAnon): pages of files that are mapped are the system's to take back. On the CPU the arrays are
host memory too and are subtracted. A process of its own samples this one, because numpy keeps Python's lock while it copies; and
malloc must not keep what is freed, or a peak could hide in it.
"""

import json
import os
import subprocess
import sys
import time

SAMPLER = """
import select, sys
highest = 0
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.002)[0]:
    with open(f"/proc/{sys.argv[1]}/status") as status:
        highest = max(highest, next(int(line.split()[1]) for line in status if line.startswith("RssAnon")))
print(highest)
"""
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def anonymous() -> int:
    """Bytes of anonymous memory now."""
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


class Peak:
    """The highest anonymous memory inside the block, above what was there before; and its seconds."""

    def __enter__(self) -> "Peak":
        command = [sys.executable, "-c", SAMPLER, str(os.getpid())]
        self._sampler = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._sampler.stdout.readline() == "ready\n"
        self._before, self._start = anonymous(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start
        highest, _ = self._sampler.communicate()
        self.bytes = max(1024 * int(highest), anonymous()) - self._before


def main(folder: str, dtype: str, *rest: str) -> None:
    *shape, table = rest[:4]
    target = rest[4] if len(rest) > 4 else None

    import jax

    jax.config.update("jax_num_cpu_devices", 8)
    from grm_jax.checkpoints.folder import load_params
    from grm_jax.checkpoints.huggingface import save_hugging_face
    from grm_jax.model.output_major import native_form
    from grm_jax.model.quantization import quantize
    from grm_jax.parallel.layout import make_layouts, use
    from grm_jax.parallel.meshes import DecodeMesh, TrainMesh
    from grm_jax.sampling.policy import SamplingPolicy
    from grm_jax.sampling.sampler import Sampler

    sizes = tuple(map(int, shape))
    layouts = make_layouts(TrainMesh(*sizes), DecodeMesh(*sizes))
    layout = getattr(layouts, table)
    form = native_form("cpu", divided=layout.mesh is not None) if table == "decode" else None
    if dtype == "int8":
        dtype, form = "bfloat16", quantize
    jax.block_until_ready(jax.numpy.zeros(3) + 1)  # what jax itself needs is there before
    with Peak() as loading:
        config, params = load_params(folder, dtype, layout, unrolled=table == "decode", form=form)
        jax.block_until_ready(params)
    leaves = jax.tree.leaves(params)
    arrays = sum(shard.data.nbytes for leaf in leaves for shard in leaf.addressable_shards)
    found = {"arrays": arrays, "loading": loading.bytes - arrays, "loading_seconds": loading.seconds}
    if table == "decode":
        with Peak() as sampling, use(layouts):
            sampler = Sampler(config, params, policy=SamplingPolicy(), max_new=1, stop_ids=frozenset())
        assert sampler
        found["sampler"] = sampling.bytes
    if target:
        with Peak() as saving:
            save_hugging_face(target, config, params, max_shard_bytes=2**30)
        found |= {"saving": saving.bytes, "saving_seconds": saving.seconds}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
