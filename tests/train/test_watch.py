"""A loss that climbs, in literal numbers."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from prismrec.data.store import Store
from prismrec.errors import TrainingError
from prismrec.train.checkpoint import load_checkpoint
from prismrec.train.settings import size_tables
from prismrec.train.trainer import Trainer, train
from prismrec.train.watch import LossWatch

from .test_trainer import MakeConfig


def test_a_plain_mean_at_first() -> None:
    watch = LossWatch()
    assert [watch.see(loss) for loss in (4.0, 2.0, 6.0)] == [0, 0, 1]
    assert (watch.smoothed, watch.lowest) == (4.0, 3.0)


def test_a_rise_is_that_of_the_smoothed_loss_above_its_lowest() -> None:
    watch = LossWatch()
    for _ in range(100):
        assert watch.see(3.0) == 0
    assert watch.see(8.0) == pytest.approx(0.1)  # a fiftieth of 5
    assert watch.see(8.0) == pytest.approx(0.198)  # and of the 4.9 that are left
    assert watch.lowest == 3.0


def test_a_rise_in_the_first_steps_counts_too() -> None:
    watch = LossWatch()
    for loss in [3.0] * 10 + [7.0] * 20:
        rise = watch.see(loss)
    assert rise == pytest.approx(20 / 30 * 4)
    assert watch.lowest == 3.0


@given(losses=st.lists(st.floats(0, 20), min_size=1, max_size=200))
def test_a_loss_that_falls_never_rises(losses: list[float]) -> None:
    watch = LossWatch()
    assert max(watch.see(loss) for loss in sorted(losses, reverse=True)) <= 1e-9


RISING = (
    "train.warmup_steps=0",
    "train.decay=none",
    "train.clip_norm=0",
    "train.max_steps=150",
    "train.validate_every=1000",
    "loss.queue_size=32",
    "loss.temperature=0.05",
)


def test_training_says_that_its_loss_climbs(
    store: Store, make_config: MakeConfig, tmp_path: Path, said: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 60 good steps, learning rates that are far too high."""
    trainer = Trainer(store, tmp_path / "run", size_tables(make_config(*RISING), store), said)
    trainer.begin()
    step = trainer.optimizers.step

    def go_astray() -> None:
        if trainer.progress.step == 60:
            for optimizer in trainer.optimizers._optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] = 50.0
            for schedule in trainer.optimizers._schedules:
                schedule.base_lrs = [50.0 for _ in schedule.base_lrs]
        step()

    monkeypatch.setattr(trainer.optimizers, "step", go_astray)
    trainer.run()
    text = " ".join(said.export_text().split())
    assert text.count("above its lowest; lower train.learning_rate") == 1
    assert "the loss ended" in text
    kept = load_checkpoint(tmp_path / "run")
    assert kept is not None
    assert kept.progress.watch.smoothed - kept.progress.watch.lowest > 1


def test_a_warm_up_that_goes_astray_is_told_of(
    store: Store, make_config: MakeConfig, tmp_path: Path, said: Console
) -> None:
    """The whole training is shorter than its warm-up; the loss alone rises there anyway, with the queue."""
    astray = ("train.table_learning_rate=30", "model.item_norm=free", "train.clip_norm=0", "train.validate_every=1000")
    config = make_config("train.epochs=1000", "train.max_steps=60", "train.warmup_steps=100", *astray)
    train(store.path, tmp_path / "run", config, console=said)
    assert "above its lowest; lower train.learning_rate" in " ".join(said.export_text().split())


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ("train.learning_rate=1e30", "vectors of (items|users): expected (finite )?numbers, found"),
        ("train.table_learning_rate=1e30", "vectors of items: expected numbers, found zeros for most items"),
    ],
)
@pytest.mark.parametrize("validates", [True, False])
def test_a_model_without_vectors_is_not_kept(
    store: Store, make_config: MakeConfig, tmp_path: Path, rates: str, message: str, validates: bool
) -> None:
    config = make_config(rates, "train.warmup_steps=0", "train.max_steps=1", "train.validate_k=4")
    trainer = Trainer(store, tmp_path / "run", size_tables(config, store), Console(quiet=True))
    trainer.has_validation = validates
    trainer.begin()
    with pytest.raises(TrainingError, match=message):
        trainer.run()
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_training_that_learns_says_nothing(
    store: Store, make_config: MakeConfig, tmp_path: Path, said: Console
) -> None:
    train(store.path, tmp_path / "run", make_config("train.epochs=8"), console=said)
    assert "lowest" not in said.export_text()


def test_weights_that_the_last_update_has_spoilt_are_not_kept(
    store: Store, make_config: MakeConfig, tmp_path: Path, said: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(store, tmp_path / "run", size_tables(make_config("train.max_steps=3"), store), said)
    trainer.begin()
    step = trainer.optimizers.step

    def overflow() -> None:
        step()
        if trainer.progress.step == 2:  # the third step is not counted yet
            next(trainer.model.parameters()).data[-1] = torch.inf

    monkeypatch.setattr(trainer.optimizers, "step", overflow)
    with pytest.raises(TrainingError, match=r"step 3: the update has left .* with numbers that are not finite; lower"):
        trainer.run()
    kept = load_checkpoint(tmp_path / "run")
    assert kept is not None
    assert kept.progress.step == 0
