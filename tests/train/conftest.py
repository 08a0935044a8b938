"""Programs compiled once for all runs of these tests: a run that is killed, gone on with and repeated is one program."""

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

CACHE = {
    "jax_compilation_cache_dir": None,
    "jax_persistent_cache_min_compile_time_secs": 0.05,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@pytest.fixture(scope="package", autouse=True)
def _compiled_once(tmp_path_factory):
    before = {name: getattr(jax.config, name) for name in CACHE}
    for name, value in CACHE.items():
        jax.config.update(name, value or str(tmp_path_factory.mktemp("compiled")))
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def without_plots(monkeypatch):
    """Leaves out the plot at the end of a run, which takes longer than a small run itself."""
    monkeypatch.setattr("grm_jax.train.loop.save_training_plots", lambda folder: None)
