"""A model made by transformers, through our hands and back."""

import pytest
from model_folders import SHAPES

from grm_jax.checkpoints import load_hugging_face, load_orbax, save_hugging_face, save_orbax
from grm_jax.checkpoints.verify import compare_with_transformers
from grm_jax.keys import generator
from grm_jax.model.config import config_to_hugging_face
from grm_jax.parallel.layout import make_layouts
from grm_jax.parallel.meshes import DecodeMesh, TrainMesh

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="the reference implementation runs on torch")
transformers = pytest.importorskip("transformers")


def reload(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto", attn_implementation="eager").eval()


@pytest.mark.parametrize("max_shard_size", ["1GB", "2KB"])
def test_a_model_of_transformers_is_the_same_after_us(tmp_path, config, dtype, max_shard_size):
    torch.manual_seed(0)
    data = {**config_to_hugging_face(config), "initializer_range": 0.5}
    model = transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**data)).to(getattr(torch, dtype)).eval()
    model.save_pretrained(tmp_path / "theirs", max_shard_size=max_shard_size)

    read_config, params = load_hugging_face(tmp_path / "theirs")
    assert read_config == config
    save_orbax(tmp_path / "orbax", read_config, params)
    save_hugging_face(tmp_path / "ours", *load_orbax(tmp_path / "orbax"), max_shard_bytes=2000)
    layout = make_layouts(TrainMesh(2, 2, 2), DecodeMesh()).train
    divided = load_hugging_face(tmp_path / "theirs", layout=layout)
    save_hugging_face(tmp_path / "divided", *divided, max_shard_bytes=2000)

    theirs = model.state_dict()
    for name in ("ours", "divided"):
        again = reload(tmp_path / name)
        ours = again.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in theirs)

    tokens = torch.from_numpy(
        generator("tokens").integers(config.vocab_size, size=(2, config.window + 3 if config.window < 9 else 9))
    )
    with torch.no_grad():
        expected = reload(tmp_path / "theirs")(tokens).logits
        assert torch.equal(again(tokens).logits, expected)


def test_our_logits_are_those_of_a_model_of_transformers(tmp_path):
    torch.manual_seed(1)
    config = SHAPES["head width times heads is not the model width"]
    data = {**config_to_hugging_face(config), "initializer_range": 0.5}
    transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**data)).save_pretrained(tmp_path / "theirs")
    compared = compare_with_transformers(tmp_path / "theirs")
    assert compared.beyond_window
    assert compared.largest < 1e-4
