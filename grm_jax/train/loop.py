"""The one training loop: any loss, any source of batches, and a run that goes on where it was killed."""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from grm_jax.errors import Stopped, UserError
from grm_jax.model.config import Gemma2Config
from grm_jax.model.gemma2 import Gemma2, trainable
from grm_jax.parallel import hosts
from grm_jax.parallel.layout import Layout
from grm_jax.train import checkpointing, lora, speed
from grm_jax.train.best import Score
from grm_jax.train.goodput import Goodput
from grm_jax.train.interruptions import stop_requests, watchdog
from grm_jax.train.metrics import MetricsLog, NoLog
from grm_jax.train.optimizer import make_optimizer, make_schedule
from grm_jax.train.placement import Placement
from grm_jax.train.plots import save_training_plots
from grm_jax.train.step import Batch, Loss, Params, TrainState, init_state, make_step
from grm_jax.train.training import Training

CHECKPOINTS = "checkpoints"
_SKIPPED_LIMIT = 5  # steps one after another that are not finite


class BatchSource(Protocol):
    """Where batches come from. All that `next` depends on is in its state, so that a run can go on."""

    def next(self, params: Params) -> tuple[Batch, dict[str, float]]:
        """Returns the next batch and metrics of its making.

        Args:
            params: the model's parameters now; not to be kept, the next step overwrites them.
        """

    def get_state(self) -> dict[str, Any]:
        """What `set_state` wants in order that `next` goes on from here; JSON can hold it."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from where `get_state` gave this."""


def fit(
    params: Params,
    loss: Loss,
    training: Training,
    source: BatchSource,
    folder: Path,
    *,
    progress: Callable[[int, str], None] | None = None,
    work: Callable[[Batch], speed.Work] | None = None,
    export: Callable[[int, Params], None] | None = None,
    placement: Placement | None = None,
) -> Params:
    """Trains a model; killed at any moment and called again, it gives the same bits as if it had not been.

    Writes `metrics.jsonl`, `tensorboard/`, `checkpoints/` and, at the end, `plots/training.png`. Of a checkpoint in the folder it
    goes on; the arguments must then be those of the first call. The same bits are those of the same machine and versions;
    fields of `metrics.WALL_CLOCK` are of each run its own. Told to stop (SIGTERM), it saves the step that it is at. All processes
    of a run call it with the same; process 0 writes, and a request to stop reaches all through any.

    Args:
        params: the model's parameters to start from; jax arrays are given away, or the weights would be there twice.
        loss: (parameters, batch) -> LossTerms.
        training: settings.
        source: of batches.
        folder: of the run.
        progress: called with (steps done, note) after every step.
        work: what a batch asks of the model, for tokens a second and the utilisation.
        export: called with (step, the model's parameters) after each `export_every` steps but the last, and at the end for the
            best checkpoint if it is another than the last; a resumed run may call it again for a step, with the same bits.
        placement: on a mesh; None for one device. A run may go on in another.

    Returns:
        The model's parameters on the device: the moving average if there is one, LoRA merged.

    Raises:
        Stopped: SIGTERM has come, and the last step is saved.
        UserError: five steps one after another were not finite, or what `checkpointing` and `step` refuse.
    """
    goodput = Goodput(folder)
    model = _Model(training)
    optimizer, schedule = make_optimizer(training), make_schedule(training)
    trained, frozen = model.split(params)
    begin = functools.partial(init_state, optimizer=optimizer, ema=training.ema_decay > 0)
    layout, places = Layout(), None
    if placement:
        layout = placement.layout
        abstract = jax.eval_shape(begin, trained, frozen=frozen)
        places = placement.state(abstract, optimizer, model.names(placement.of(params)))
        trained, frozen = jax.device_put((trained, frozen), (places.params, places.frozen))
    given_away = ("params", "frozen")
    state = jax.jit(begin, out_shardings=places, donate_argnames=given_away)(trained, frozen=frozen)
    del params, trained, frozen
    restored = checkpointing.restore(folder / CHECKPOINTS, state)
    if restored:
        state, source_state = restored
        source.set_state(source_state)
    step = make_step(
        loss, optimizer, accumulate=training.accumulate, ema_decay=training.ema_decay, merge=model.merge_function,
        places=places,
    )  # fmt: skip
    first, start = int(state.step) + 1, time.perf_counter()
    goodput.started()
    speedometer = speed.Speedometer(training.peak_flops or speed.peak_flops(jax.devices()[0].device_kind))
    score = Score(training.keep_best)
    with (
        MetricsLog(folder, first - 1) if hosts.is_leader() else NoLog() as log, checkpointing.Saver(folder / CHECKPOINTS) as saver,
        stop_requests() as told_to_stop, watchdog(training.step_limit) as alive,
    ):  # fmt: skip
        for number in range(first, training.steps + 1):
            begun = time.perf_counter()
            batch, extra = source.next(model.merged(state))
            placed = layout.place(batch)
            ready = time.perf_counter()
            with layout.active():
                state, device_metrics = step(state, placed)
            metrics = {name: float(value) for name, value in jax.device_get(device_metrics).items()}
            ended = time.perf_counter()
            alive()
            score.add({**extra, **metrics})
            speedometer.add(ended - begun, ready - begun, work(batch) if work else None)
            goodput.step(number, ready - begun, ended - ready)
            last = number == training.steps
            if last or _is_due(number, training.log_every):
                clock = {"seconds": log.seconds + ended - start, **speedometer.read()}
                updates = number - int(state.skipped)
                rate = float(schedule(max(updates - 1, 0)))  # of the last update
                log.write(number, {**extra, **metrics, "learning_rate": rate, **clock})
            if int(state.skipped_in_row) >= _SKIPPED_LIMIT:
                saver.wait()
                raise _not_finite(number, folder / CHECKPOINTS)
            if export and not last and _is_due(number, training.export_every):
                export(number, model.result(state))
            stopping = hosts.any_of(told_to_stop()) and not last
            if last or stopping or _is_due(number, training.save_every):
                log.flush()
                begun = time.perf_counter()
                saver.save(state, source.get_state(), score.take())
                if last or stopping:
                    saver.wait()
                goodput.checkpoint(time.perf_counter() - begun)
                if hosts.is_leader():
                    goodput.write()
            if stopping:
                raise Stopped(f"step {number}")
            if progress:
                progress(number, f"loss {metrics['loss']:.4f}")
    if hosts.is_leader():
        save_training_plots(folder)
    best = checkpointing.restore_best(folder / CHECKPOINTS, state) if export and training.keep_best else None
    if export and best and int(best.step) != training.steps:
        export(int(best.step), model.result(best))
    return model.result(state)


def training_model(config: Gemma2Config, training: Training) -> Gemma2:
    """The module that computes as the settings say: its dtype, and whether activations are kept. It takes stacked parameters."""
    return trainable(config, dtype=jnp.dtype(training.dtype), remat=training.remat)


class _Model:
    """How the trained leaves become the model's parameters: as they are, or as the factors of LoRA."""

    def __init__(self, training: Training):
        self._training = training
        self.merge_function: Callable[[Params, Params], Params] | None = None
        if training.lora_rank:
            self.merge_function = lambda frozen, trained: lora.merge(frozen, trained, training.lora_alpha)
            self._merge = jax.jit(self.merge_function)

    def names(self, names: Params) -> Params:
        """Names of the axes of the trained leaves, from those of the model's."""
        return lora.names(names) if self._training.lora_rank else names

    def split(self, params: Params) -> tuple[Params, Params]:
        """(trained, frozen); trained leaves are float32, whatever the type of the weights given."""
        trained: Params = params
        frozen: Params = {}
        if self._training.lora_rank:
            trained, frozen = lora.split(params, self._training.lora_rank, self._training.seed)
        return jax.tree.map(lambda x: x.astype(jnp.float32), trained), frozen

    def merged(self, state: TrainState) -> Params:
        return self._merge(state.frozen, state.params) if self.merge_function else state.params

    def result(self, state: TrainState) -> Params:
        """The parameters to use: of the moving average if there is one."""
        return self.merged(dataclasses.replace(state, params=state.ema) if state.ema else state)


def _is_due(number: int, every: int) -> bool:
    return every > 0 and number % every == 0


def _not_finite(step: int, checkpoints: Path) -> UserError:
    saved = checkpointing.steps(checkpoints)
    last = f"the last checkpoint is {checkpoints / str(saved[-1])}" if saved else "no checkpoint was written before"
    return UserError(
        f"step {step}: loss or gradient was not finite {_SKIPPED_LIMIT} times in a row; {last}; lower the learning rate"
    )
