"""A judge of random weights, and one that says what a test wants it to say."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from grm_jax.checkpoints import save_hugging_face
from grm_jax.data.arena.corpus import corpus
from grm_jax.model.config import Gemma2Config
from grm_jax.model.gemma2 import init_params
from grm_jax.sampling.sampler import Completion
from grm_jax.text.sentencepiece_training import train_sentencepiece
from grm_jax.text.template_file import template_text
from grm_jax.text.tokenizer import load_tokenizer

CONFIG = Gemma2Config(
    vocab_size=400, model_dim=16, mlp_dim=32, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8, window=16,
    query_pre_attn_scalar=8, attention_soft_cap=5.0, final_soft_cap=4.0, max_length=512,
)  # fmt: skip


def write_judge(folder: Path, config: Gemma2Config = CONFIG, text: list[str] | None = None) -> Path:
    """Writes a model folder: random weights, a tokenizer trained on `text` (default: the arena), the tiny template."""
    train_sentencepiece(text or corpus("train", 40, 0), folder, config.vocab_size)
    params = jax.jit(init_params, static_argnums=0)(config, jax.random.key(3))
    save_hugging_face(folder, config, jax.tree.map(np.asarray, params))
    (folder / "template.toml").write_text(template_text("tiny"), encoding="utf-8")
    return folder


class Scripted:
    """Stands in for a sampler: every completion is the text that `write` makes of (request, index of the sample)."""

    is_local = True

    def __init__(self, folder: Path, write: Callable[[object, int], str]):
        self._tokenizer = load_tokenizer(folder)
        self._write = write
        self.requests: list = []
        self.compilations: set = set()

    def load(self, params):
        """Takes no notice of parameters."""

    def sample(self, requests, *, alike=False):
        self.requests += requests
        for i, request in enumerate(requests):
            yield i, [self._completion(self._write(request, j)) for j in range(len(request.keys))]

    def _completion(self, text: str) -> Completion:
        ids = np.array([*self._tokenizer.encode(text), self._tokenizer.control_id("<end_of_turn>")], np.int32)
        return Completion(ids=ids, logprobs=np.full(len(ids), -0.5, np.float32), stopped=True)
