"""A program: one of two processes that load a model on a mesh of both's devices; it writes the shards it holds.

python one_of_two.py PROCESS PORT FOLDER OUTPUT
"""

import sys

import numpy as np


class Counted:
    """A stored tensor; how many numbers are read of it goes to a list."""

    def __init__(self, tensor, read):
        self._tensor, self._read = tensor, read

    def __getitem__(self, index):
        part = self._tensor[index]
        self._read.append(part.size)
        return part


def counting(open_tensors, read):
    """`open_tensors` with its tensors counted."""

    def opened(headers):
        tensor = open_tensors(headers)
        return lambda name: Counted(tensor(name), read)

    return opened


def main(process: str, port: str, folder: str, output: str) -> None:
    import jax

    jax.config.update("jax_num_cpu_devices", 4)
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(process))
    from flax.traverse_util import flatten_dict

    from grm_jax.checkpoints import huggingface
    from grm_jax.parallel.layout import make_layouts
    from grm_jax.parallel.meshes import DecodeMesh, TrainMesh

    read: list[int] = []
    huggingface.open_tensors = counting(huggingface.open_tensors, read)
    _, params = huggingface.load_hugging_face(folder, layout=make_layouts(TrainMesh(1, 4, 2), DecodeMesh()).train)
    found = {"read": np.array(sum(read))}
    for path, leaf in flatten_dict(params, sep="/").items():
        assert not leaf.is_fully_addressable
        for shard in leaf.addressable_shards:
            start = ",".join(str(where.indices(size)[0]) for where, size in zip(shard.index, leaf.shape, strict=True))
            found[f"{path}:{start}"] = np.asarray(shard.data)
    np.savez(output, **{name.replace("/", "|"): array for name, array in found.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
