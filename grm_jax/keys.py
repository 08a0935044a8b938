"""Keyed randomness: every random stream is named, never counted.

A stream belongs to names such as (seed, item id, sample index). It depends on nothing else: not on the batch, the
host, the arrival order or how many samples were asked for.
"""

import hashlib

import numpy as np


def digest(*names: int | str) -> bytes:
    """Hashes names to 32 bytes; distinct tuples of names give unrelated digests.

    Each name is written with its type and length, so ("ab", "c") and ("a", "bc"), or 1 and "1", differ.
    """
    hasher = hashlib.blake2b(digest_size=32)
    for name in names:
        data = str(name).encode("utf-8", "surrogatepass")
        hasher.update(f"{type(name).__name__}:{len(data)}:".encode())
        hasher.update(data)
    return hasher.digest()


def stream_key(*names: int | str) -> np.ndarray:
    """Returns raw threefry key data, uint32[2], for `jax.random.wrap_key_data`."""
    return np.frombuffer(digest(*names)[:8], dtype="<u4").astype(np.uint32)


def generator(*names: int | str) -> np.random.Generator:
    """Returns a numpy generator (Philox) for the named stream."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest(*names)[:16], "little")))
