"""Laws of the one training loop."""

import jax
import numpy as np
import pytest

from grm_jax.errors import UserError
from grm_jax.train import checkpointing, loop
from grm_jax.train.loop import fit
from grm_jax.train.metrics import WALL_CLOCK, read_rows
from grm_jax.train.speed import Work
from grm_jax.train.training import Training
from tests.train.toy import Interrupted, Source, assert_equal_trees, copied, rows_of, stored, toy_loss, toy_params

pytestmark = pytest.mark.usefixtures("without_plots")
STEPS, BAD = 7, (2, 6)  # the second and the sixth batch hold NaN


def settings(**changes):
    given = {"steps": STEPS, "learning_rate": 0.1, "warmup": 2, "ema_decay": 0.5, "save_every": 2, "log_every": 1}
    return Training(**given | changes)


def run(folder, source=None, training=None, **given):
    return copied(fit(toy_params(), toy_loss, training or settings(), source or Source(bad=BAD), folder, **given))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(parameters, rows) of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_training_plots", lambda folder: None)
        return run(folder), rows_of(folder)


def test_the_run_has_a_row_for_every_step_and_what_is_not_finite_is_left_out(whole):
    _, rows = whole
    assert [row["step"] for row in rows] == [*range(1, STEPS + 1)]
    assert [row["batch_number"] for row in rows] == [*range(1, STEPS + 1)]
    assert [row["skipped_steps"] for row in rows] == [0, 1, 1, 1, 1, 2, 2]
    assert ["loss" in row for row in rows] == [number not in BAD for number in range(1, STEPS + 1)]
    # The rate is that of the last update: a skipped step is none.
    rates = [0.1 * part for part in (0, 0, 0.5, 1)]
    assert [row["learning_rate"] for row in rows[:4]] == pytest.approx(rates)


def kill_at_batch(patch, number):
    return {"source": Source(bad=BAD, killed=number)}


def kill_after_step(patch, number):
    def progress(step, note):
        if step == number:
            raise Interrupted

    return {"progress": progress}


def kill_in_saving(patch, number):
    real = checkpointing._flush

    def killed(files):
        if any(f".{number}.tmp" in path.parts for path in files):
            raise Interrupted
        real(files)

    patch.setattr(checkpointing, "_flush", killed)
    return {}


def kill_in_export(patch, number):
    def export(step, params):
        if step == number:
            raise Interrupted

    return {"export": export, "training": settings(export_every=1)}


KILLS = [
    *((kill_at_batch, number) for number in range(1, STEPS + 1)),
    *((kill_after_step, number) for number in (1, 2, 5, 7)),
    *((kill_in_saving, number) for number in (2, 4, 7)),
    *((kill_in_export, number) for number in (1, 4)),
]


@pytest.mark.parametrize(("kill", "number"), KILLS)
def test_a_run_killed_anywhere_and_called_again_gives_the_same_bits_and_rows(
    tmp_path, whole, monkeypatch, kill, number
):
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        run(tmp_path, **kill(patch, number))
    assert_equal_trees(run(tmp_path), whole[0])
    assert rows_of(tmp_path) == whole[1]
    assert checkpointing.steps(tmp_path / "checkpoints")[-1] == STEPS


def test_a_run_killed_again_and_again_gives_the_same_bits_and_rows(tmp_path, whole):
    for number in (3, 4, 7):
        with pytest.raises(Interrupted):
            run(tmp_path, Source(bad=BAD, killed=number))
    assert_equal_trees(run(tmp_path), whole[0])
    assert rows_of(tmp_path) == whole[1]


def test_a_run_that_is_done_gives_its_result_again_without_a_step(tmp_path, whole):
    run(tmp_path)
    seen = []
    again = run(tmp_path, Source(killed=1), progress=lambda *_: seen.append(_))
    assert_equal_trees(again, whole[0])
    assert not seen and rows_of(tmp_path) == whole[1]


def test_a_damaged_checkpoint_costs_steps_and_changes_nothing(tmp_path, whole):
    with pytest.raises(Interrupted):
        run(tmp_path, Source(bad=BAD, killed=6))
    (tmp_path / "checkpoints" / "4" / "source.json").unlink()
    source = Source(bad=BAD)
    assert_equal_trees(run(tmp_path, source), whole[0])
    assert rows_of(tmp_path) == whole[1]


def test_the_time_of_both_lives_is_counted(tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path, Source(bad=BAD, killed=6))
    spent = read_rows(tmp_path / "metrics.jsonl")[3]["seconds"]  # at the checkpoint
    run(tmp_path)
    seconds = [row["seconds"] for row in read_rows(tmp_path / "metrics.jsonl")]
    assert seconds == sorted(seconds) and seconds[3] == spent < seconds[4]


def test_five_steps_in_a_row_that_are_not_finite_stop_the_run_and_name_the_last_checkpoint(tmp_path):
    """With a checkpoint after each second step, the last one is that of step 6: its weights are still those of step 2."""
    with pytest.raises(UserError) as caught:
        run(tmp_path, Source(bad=range(3, 8)), settings(steps=20))
    last = tmp_path / "checkpoints" / "6"
    expected = f"step 7: loss or gradient was not finite 5 times in a row; the last checkpoint is {last}; lower the learning rate"
    assert str(caught.value) == expected and last.is_dir()
    leaves = stored(last)
    assert all(np.isfinite(leaf).all() for leaf in leaves.values())


def test_a_run_that_stops_before_any_checkpoint_says_so(tmp_path):
    with pytest.raises(UserError, match=r"step 5: .* no checkpoint was written before"):
        run(tmp_path, Source(bad=range(1, 6)), settings(save_every=0))


def test_four_in_a_row_do_not_stop_it_and_a_resumed_run_counts_on(tmp_path):
    run(tmp_path / "four", Source(bad=(2, 3, 4, 5)))
    with pytest.raises(Interrupted):
        run(tmp_path / "five", Source(bad=range(2, 7), killed=5))  # goes on from step 4, the third in a row
    with pytest.raises(UserError, match=r"step 6: "):
        run(tmp_path / "five", Source(bad=range(2, 7)))


def test_models_are_exported_when_due_and_never_at_the_end(tmp_path):
    exported = {}
    run(
        tmp_path, training=settings(export_every=2, steps=6),
        export=lambda step, params: exported.update({step: copied(params)}),
    )  # fmt: skip
    assert list(exported) == [2, 4]
    early = run(tmp_path / "early", training=settings(schedule="constant", steps=4))
    run(
        tmp_path / "late", training=settings(schedule="constant", export_every=4),
        export=lambda step, params: exported.update({step: copied(params)}),
    )  # fmt: skip
    assert_equal_trees(exported[4], early)  # the result that a run of so many steps would have had: the average


def test_progress_is_told_of_every_step(tmp_path):
    told = []
    run(tmp_path, progress=lambda step, note: told.append((step, note)))
    losses = {row["step"]: row["loss"] for row in rows_of(tmp_path) if "loss" in row}
    assert told == [(step, f"loss {losses.get(step, float('nan')):.4f}") for step in range(1, STEPS + 1)]


def test_rows_are_written_when_due_and_at_the_end(tmp_path):
    run(tmp_path, training=settings(log_every=3))
    assert [row["step"] for row in rows_of(tmp_path)] == [3, 6, 7]


def test_the_result_is_the_moving_average_when_there_is_one(tmp_path, whole):
    averaged = run(tmp_path / "on")
    leaves = stored(tmp_path / "on" / "checkpoints" / str(STEPS))
    np.testing.assert_array_equal(averaged["w"], leaves["ema.w"])
    assert (leaves["ema.w"] != leaves["params.w"]).all()
    plain = run(tmp_path / "off", training=settings(ema_decay=0.0))
    np.testing.assert_array_equal(plain["w"], leaves["params.w"])  # the average has no influence on what is averaged


def test_the_source_sees_the_parameters_of_now(tmp_path):
    seen = []

    class Watching(Source):
        def next(self, params):
            seen.append(copied(params))
            return super().next(params)

    run(tmp_path, Watching(), settings(ema_decay=0.0, steps=3, warmup=0))
    assert_equal_trees(seen[0], toy_params())
    assert (seen[1]["w"] != seen[0]["w"]).all() and (seen[2]["w"] != seen[1]["w"]).all()


def test_weights_of_any_type_are_trained_in_float32_and_the_callers_stay(tmp_path):
    params = jax.tree.map(lambda x: jax.numpy.asarray(x, "bfloat16"), toy_params())
    result = fit(params, toy_loss, settings(steps=2), Source(), tmp_path)
    assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {np.dtype("float32")}
    assert_equal_trees(copied(params), jax.tree.map(lambda x: np.asarray(x, "bfloat16"), toy_params()))


def test_weights_are_not_there_twice(tmp_path):
    """Arrays on devices become the state's own; those of numpy stay as they are."""
    ours = toy_params()
    given = jax.tree.map(lambda x: jax.numpy.array(x, copy=True), ours)
    result = copied(fit(given, toy_loss, settings(steps=2), Source(), tmp_path / "given"))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))
    assert_equal_trees(copied(fit(ours, toy_loss, settings(steps=2), Source(), tmp_path / "ours")), result)
    assert_equal_trees(ours, toy_params())


def test_speed_is_in_the_rows_but_for_the_first_step(tmp_path):
    run(tmp_path, training=settings(peak_flops=1e6), work=lambda batch: Work(len(batch["y"]), 30.0))
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert "seconds" in rows[0] and not {"step_seconds", "tokens_per_second"} & rows[0].keys()
    for row in rows[1:]:
        assert set(WALL_CLOCK) <= row.keys()
        assert 0 <= row["source_seconds"] < row["step_seconds"]
        assert row["tokens_per_second"] == pytest.approx(4 / row["step_seconds"])
        assert row["flops_utilisation"] == pytest.approx(30 / 1e6 / row["step_seconds"])


@pytest.mark.parametrize(
    ("keep_best", "steps_kept"), [("batch_number", [4, 6, 7]), ("-batch_number", [2, 6, 7]), ("", [6, 7])]
)
def test_the_checkpoint_of_the_best_metric_is_kept_and_its_model_saved(tmp_path, keep_best, steps_kept):
    """Batches 3 and 4 count for the checkpoint of step 4, and so on; batch numbers are made to peak there."""
    peak = {1: 1.0, 2: 1.0, 3: 5.0, 4: 6.0, 5: 2.0, 6: 2.0, 7: 3.0}

    class Peaked(Source):
        def next(self, params):
            batch, _ = super().next(params)
            return batch, {"batch_number": peak[self.number]}

    exported = {}
    run(
        tmp_path, Peaked(), settings(keep_best=keep_best),
        export=lambda step, params: exported.update({step: copied(params)}),
    )  # fmt: skip
    assert checkpointing.steps(tmp_path / "checkpoints") == steps_kept
    kept = steps_kept[0]
    assert list(exported) == ([kept] if keep_best else [])
    if keep_best:
        np.testing.assert_array_equal(exported[kept]["w"], stored(tmp_path / "checkpoints" / str(kept))["ema.w"])


def test_a_best_metric_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(
        UserError, match="keep_best: there is no metric 'reward'; there are batch_number, gradient_norm, loss"
    ):
        run(tmp_path, training=settings(keep_best="reward"))
