"""Small models of odd shapes, and Hugging Face folders written without the code under test."""

import json

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from grm_jax.keys import generator
from grm_jax.model.config import Gemma2Config, config_to_hugging_face

SHAPES = {
    "head width times heads is not the model width": Gemma2Config(11, 6, 10, 4, 3, 1, 4, window=5, max_length=32),
    "groups of two": Gemma2Config(7, 8, 5, 2, 4, 2, 2, window=3, query_pre_attn_scalar=5, max_length=16),
    "all heads with their own keys": Gemma2Config(13, 6, 3, 6, 2, 2, 6, attention_soft_cap=None, final_soft_cap=None),
}
SMALL = SHAPES["groups of two"]


def stored_shapes(c: Gemma2Config) -> dict[str, tuple[int, ...]]:
    shapes = {"model.embed_tokens.weight": (c.vocab_size, c.model_dim), "model.norm.weight": (c.model_dim,)}
    for i in range(c.num_layers):
        layer = f"model.layers.{i}"
        for norm in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            shapes[f"{layer}.{norm}_layernorm.weight"] = (c.model_dim,)
        for matrix, heads in (("q", c.num_heads), ("k", c.num_kv_heads), ("v", c.num_kv_heads)):
            shapes[f"{layer}.self_attn.{matrix}_proj.weight"] = (heads * c.head_dim, c.model_dim)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (c.model_dim, c.num_heads * c.head_dim)
        shapes[f"{layer}.mlp.gate_proj.weight"] = shapes[f"{layer}.mlp.up_proj.weight"] = (c.mlp_dim, c.model_dim)
        shapes[f"{layer}.mlp.down_proj.weight"] = (c.model_dim, c.mlp_dim)
    return shapes


def random_array(shape: tuple[int, ...], dtype: str, *names: int | str) -> np.ndarray:
    """Random bits among the finite numbers and the infinities, -0 and subnormals included."""
    bits = generator("checkpoint test", *names).integers(2**16, size=shape).astype(np.uint16)
    special = bits & 0x7F80 == 0x7F80
    bits = np.where(special, bits & 0xFF80, bits)  # every NaN becomes an infinity
    if dtype == "bfloat16":
        return bits.view(ml_dtypes.bfloat16)
    fraction = generator("fraction", *names).integers(2**16, size=shape).astype(np.uint32)
    return (bits.astype(np.uint32) << 16 | np.where(special, 0, fraction)).view(np.float32)


def hugging_face_tensors(config: Gemma2Config, dtype: str = "float32") -> dict[str, np.ndarray]:
    return {name: random_array(shape, dtype, name) for name, shape in stored_shapes(config).items()}


def write_hugging_face(folder, config, tensors, shards=1):
    """Writes a folder as transformers would: tensors dealt out to shards, an index beside them."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_to_hugging_face(config)))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    weight_map = {name: f"model-{i % shards + 1:05d}-of-{shards:05d}.safetensors" for i, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        save_file({name: tensors[name] for name in tensors if weight_map[name] == file}, folder / file)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def random_params(config: Gemma2Config, dtype: str = "float32") -> dict:
    """A tree as docs/design.md states it."""
    c, pairs = config, config.num_pairs
    heads, kv = (c.model_dim, c.num_heads, c.head_dim), (c.model_dim, c.num_kv_heads, c.head_dim)

    def layer(kind: str) -> dict:
        def array(name, shape):
            return random_array((pairs, *shape), dtype, kind, name)

        norms = ("pre_attention_norm", "post_attention_norm", "pre_mlp_norm", "post_mlp_norm")
        return {norm: array(norm, (c.model_dim,)) for norm in norms} | {
            "attention": {
                "query": array("query", heads),
                "key": array("key", kv),
                "value": array("value", kv),
                "output": array("output", (c.num_heads, c.head_dim, c.model_dim)),
            },
            "mlp": {
                "gate": array("gate", (c.model_dim, c.mlp_dim)),
                "up": array("up", (c.model_dim, c.mlp_dim)),
                "down": array("down", (c.mlp_dim, c.model_dim)),
            },
        }

    return {
        "embedding": random_array((c.vocab_size, c.model_dim), dtype, "embedding"),
        "layers": {kind: layer(kind) for kind in ("local", "global")},
        "final_norm": random_array((c.model_dim,), dtype, "final_norm"),
    }


def assert_same_tensors(a: dict, b: dict) -> None:
    """The same names, and for each the same shape, dtype and bytes."""
    assert set(a) == set(b)
    for name in a:
        x, y = np.asarray(a[name]), np.asarray(b[name])
        assert (x.shape, x.dtype, x.tobytes()) == (y.shape, y.dtype, y.tobytes()), name
