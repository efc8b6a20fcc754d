import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from prismrec.artifact import alone, read_manifest
from prismrec.config import Config
from prismrec.data.store import Store
from prismrec.errors import ArtifactError, ConfigError, TrainingError
from prismrec.evaluate.evaluator import recalls_at_k
from prismrec.model.run import load_run, weights_file
from prismrec.train.checkpoint import load_checkpoint
from prismrec.train.settings import resolve_config
from prismrec.train.trainer import Trainer, _begun_alone, choose_device, train

MakeConfig = Callable[..., Config]
QUIET = Console(quiet=True)
RANDOM_RECALL = 4 / 59  # four guesses among the items a user has not seen in training


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    read = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in read if line["kind"] == kind]


def content(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


def weights(run: Path) -> Path:
    return weights_file(run, read_manifest(run, "run"))


@pytest.fixture(scope="module")
def trained(store: Store, make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    return train(store.path, out, make_config(), console=QUIET)


def test_it_learns(trained: Path, store: Store) -> None:
    recall = lines(trained, "valid")[-1]["recall@4"]
    assert recall > 0.8 > 10 * RANDOM_RECALL
    losses = [line["loss"] for line in lines(trained, "train")]
    assert losses[-1] < losses[5]


def test_the_run_holds_the_best_weights(trained: Path, store: Store, make_config: MakeConfig) -> None:
    best = max(lines(trained, "valid"), key=lambda line: line["recall@4"])
    manifest = read_manifest(trained, "run")
    assert manifest["best_step"] == best["step"]
    assert manifest["valid_recall@4"] == best["recall@4"]
    run = load_run(trained)
    recalls = recalls_at_k(
        run.model, store, "valid", 4, history=run.config.history, exclude_seen=True, max_users=10_000, seed=0
    )
    assert recalls.mean() == best["recall@4"]


def test_files_of_a_run(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names == {
        "checkpoint",
        "config.toml",
        "manifest.json",
        "metrics.jsonl",
        weights(trained).name,
        "tensorboard",
    }


def test_metrics_of_a_step(trained: Path) -> None:
    line = lines(trained, "train")[-1]
    assert {"step", "epoch", "loss", "nll_loss", "gradient_norm", "learning_rate", "query_weight"} <= line.keys()
    assert [line["step"] for line in lines(trained, "train")] == list(range(1, line["step"] + 1))


def test_the_seed_decides_everything(trained: Path, store: Store, make_config: MakeConfig, tmp_path: Path) -> None:
    for seed, same in ((0, True), (1, False)):
        out = train(store.path, tmp_path / str(seed), make_config(f"train.seed={seed}"), console=QUIET)
        assert (content(out)["metrics.jsonl"] == content(trained)["metrics.jsonl"]) == same
        assert (weights(out).read_bytes() == weights(trained).read_bytes()) == same


SAMPLED = ("loss.queue_size=32", "loss.in_batch_negatives=16", "loss.uniform_negatives=16")
CONTEXTUAL = ("model.encoder.kind=transformer", "model.encoder.num_layers=1", "train.epochs=8", *SAMPLED)
HSTU = ("model.encoder.kind=hstu", "model.encoder.num_layers=1", "train.epochs=8", "model.adaptive_interests=true")


@pytest.mark.parametrize(
    "overrides",
    [
        ("model.num_interests=1", "loss.full_softmax_items=100", "loss.log_q=1.0"),
        ("loss.hard_queue_size=32", "model.attention='query'", "model.layer_norm='unit'"),
        ("loss.joint=false", "loss.margin=0.05", "model.position_bias=true"),
        ("train.table_optimizer='sparse_adam'", "train.table_learning_rate=0.02", "train.precision='bfloat16'"),
        ("model.routing='straight_through'", "model.per_path_dense=true", "train.decay='linear'"),
        ("history.before_target_time=true", "model.user_id=true", "model.top_vectors=1"),
        (*CONTEXTUAL, "loss.reading='log_sum_exp'", "loss.log_q=1.0"),
        (*HSTU, "loss.reading='maximum'", "loss.usage_weight=1.0", "loss.diversity_weight=0.1", "model.item_norm=free"),
    ],
)
def test_it_learns_under_other_settings(
    store: Store, make_config: MakeConfig, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    out = train(store.path, tmp_path / "run", make_config(*overrides), console=QUIET)
    assert max(line["recall@4"] for line in lines(out, "valid")) > 5 * RANDOM_RECALL
    load_run(out)


def test_draws_and_dropout_depend_on_seed_and_step_alone(store: Store, make_config: MakeConfig, tmp_path: Path) -> None:
    runs = []
    for seed, disturbance in ((0, 1), (0, 2), (1, 1)):
        out = tmp_path / f"{seed}{disturbance}"
        overrides = (*CONTEXTUAL, f"train.seed={seed}", "train.max_steps=6")
        trainer = Trainer(store, out, resolve_config(store, out, make_config(*overrides), resume=False), QUIET)
        trainer.begin()
        torch.manual_seed(disturbance)  # as if something else had drawn random numbers
        trainer.run()
        runs.append(content(out)["metrics.jsonl"])
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("overrides", [(), ("model.encoder.kind=hstu",)], ids=["examples", "windows"])
def test_the_queue_is_kept_with_a_checkpoint(
    store: Store, make_config: MakeConfig, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    config = make_config("train.max_steps=5", "train.checkpoint_every=3", *overrides)
    out = train(store.path, tmp_path / "run", config, console=QUIET)
    restored = Trainer(store, out, load_run(out).config, QUIET)
    assert not restored.step.negatives.queue.any()
    restored.restore()
    targets = [target for batch in itertools.islice(restored.loader.batches(0), 5) for target in batch.target.tolist()]
    assert restored.step.negatives.queue.tolist() == targets[-64:]


def test_validation_by_steps_and_after_the_last(store: Store, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config("train.max_steps=10", "train.validate_every=4", "train.log_every=3")
    out = train(store.path, tmp_path / "run", config, console=QUIET)
    assert [line["step"] for line in lines(out, "valid")] == [4, 8, 10]
    assert [line["step"] for line in lines(out, "train")] == [3, 6, 9]


STILL = ("train.learning_rate=1e-30", "train.table_learning_rate=1e-30", "train.validate_every=2")


def test_training_stops_early_and_keeps_the_best(store: Store, make_config: MakeConfig, tmp_path: Path) -> None:
    out = train(store.path, tmp_path / "run", make_config(*STILL, "train.patience=3"), console=QUIET)
    assert [line["step"] for line in lines(out, "valid")] == [2, 4, 6, 8]  # the first is best, three bring no gain
    assert read_manifest(out, "run")["best_step"] == 2


def test_patience_counts_validations_in_a_row(store: Store, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config("train.patience=1", "train.validate_every=3", "train.max_steps=60")
    out = train(store.path, tmp_path / "run", config, console=QUIET)
    recalls = [line["recall@4"] for line in lines(out, "valid")]
    gains = [later > earlier for earlier, later in itertools.pairwise(recalls)]
    assert all(gains[:-1])
    assert not gains[-1] or lines(out, "valid")[-1]["step"] == 60


def test_a_finished_run_is_not_touched_again(
    trained: Path, store: Store, make_config: MakeConfig, said: Console
) -> None:
    before = content(trained)
    assert train(store.path, trained, resume=True, console=said) == trained
    train(store.path, trained, make_config(), resume=True, console=said)
    assert content(trained) == before
    assert "training finished at step" in said.export_text()


def test_more_epochs_need_a_new_run(trained: Path, store: Store, make_config: MakeConfig) -> None:
    before = content(trained)
    with pytest.raises(ConfigError, match=r"train\.epochs=9, but .* has 4; .* warm start"):
        train(store.path, trained, make_config("train.epochs=9"), resume=True, console=QUIET)
    with pytest.raises(ArtifactError, match="holds a run already"):
        train(store.path, trained, make_config("train.epochs=9"), console=QUIET)
    assert content(trained) == before


def test_resuming_nothing_starts_a_run(store: Store, make_config: MakeConfig, tmp_path: Path, said: Console) -> None:
    train(store.path, tmp_path / "run", make_config("train.max_steps=1"), resume=True, console=said)
    assert "no checkpoint to resume from, training starts at step 0" in said.export_text()


def test_one_training_at_a_time(store: Store, make_config: MakeConfig, tmp_path: Path) -> None:
    run = train(store.path, tmp_path / "run", make_config("train.max_steps=1"), console=QUIET)
    before = content(run)
    with alone(run, "run"), pytest.raises(ArtifactError, match="expected a run that nobody is changing"):
        train(store.path, run, resume=True, console=QUIET)
    with pytest.raises(ArtifactError, match="found a run begun just now"), _begun_alone(run, has_begun=False):
        pass
    assert content(run) == before


def test_resuming_on_other_data_is_refused(
    trained: Path, make_store: Callable[..., Store], store: Store, make_config: MakeConfig
) -> None:
    other = make_store(items=pl.DataFrame({"item_id": range(64), "category": [i % 8 for i in range(64)]}))
    with pytest.raises(ArtifactError, match=r"expected the store that .* was started on, found other data"):
        train(other.path, trained, resume=True, console=QUIET)


def weights_are_finite(run: Path) -> bool:
    checkpoint = load_checkpoint(run)
    assert checkpoint is not None
    return all(tensor.isfinite().all() for module in checkpoint.modules for tensor in module.values())


def test_training_that_diverges_is_refused(store: Store, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config("train.table_learning_rate=1e30", "train.learning_rate=1e30", "train.warmup_steps=0")
    with pytest.raises(TrainingError, match=r"step \d+: the loss is .*expected finite numbers; lower train\.learning"):
        train(store.path, tmp_path / "run", config, console=QUIET)
    assert weights_are_finite(tmp_path / "run")
    assert not list((tmp_path / "run").glob("model*"))


def test_a_loss_that_is_not_finite_does_not_reach_the_weights(
    store: Store, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = resolve_config(store, tmp_path / "run", make_config(), resume=False)
    trainer = Trainer(store, tmp_path / "run", config, QUIET)
    trainer.begin()
    with torch.no_grad():
        trainer.model.users.position_prior[0] = torch.nan
    before = {name: tensor.clone() for name, tensor in trainer.step.state_dict().items()}
    with pytest.raises(TrainingError, match="step 1: the loss is nan"):
        trainer.run()
    for name, tensor in trainer.step.state_dict().items():
        assert torch.equal(tensor.nan_to_num(9.0), before[name].nan_to_num(9.0)), name


def events(lengths: list[int], same_time: bool = False) -> pl.DataFrame:
    rows = [(user, event, 0 if same_time else event) for user, length in enumerate(lengths) for event in range(length)]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def test_a_store_without_examples_is_refused(
    make_store: Callable[..., Store], make_config: MakeConfig, tmp_path: Path
) -> None:
    for store, overrides in (
        (make_store(events([1, 1, 1])), ()),
        (make_store(events([4, 4], same_time=True)), ("history.before_target_time=true",)),
        (make_store(events([4, 4]).with_columns(item_id=pl.lit(1))), ()),
    ):
        with pytest.raises(TrainingError, match="no training event has an earlier one of the same user with another"):
            train(store.path, tmp_path / "run", make_config(*overrides), console=QUIET)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("reason", ["no events", "nothing new"])
def test_without_validation_the_last_weights_are_kept(
    make_store: Callable[..., Store], make_config: MakeConfig, tmp_path: Path, said: Console, reason: str
) -> None:
    # users of two events have none for validation; those of four see an item of training again in it
    table = events([2] * 8) if reason == "no events" else events([4] * 8).with_columns(pl.col("item_id") % 2)
    store = make_store(table)
    out = train(store.path, tmp_path / "run", make_config("train.epochs=2"), console=said)
    assert "no validation, so the last weights will be kept" in said.export_text()
    step = lines(out, "train")[-1]["step"]
    assert read_manifest(out, "run")["best_step"] == step
    last = load_checkpoint(out)
    assert last is not None
    assert all(torch.equal(tensor, last.modules[0][name]) for name, tensor in load_file(weights(out)).items())


def test_baskets_are_learned_from_what_came_before_them(
    make_store: Callable[..., Store], make_config: MakeConfig, tmp_path: Path
) -> None:
    """Each pair of items follows another, around a circle of ten; users start at different pairs and buy three."""
    rows = [(user, (2 * user + event) % 20, event // 2) for user in range(60) for event in range(6)]
    store = make_store(pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"))
    config = make_config("history.before_target_time=true", "train.epochs=30", "train.patience=30")
    out = train(store.path, tmp_path / "run", config, console=QUIET)
    assert max(line["recall@4"] for line in lines(out, "valid")) > 0.9


def test_threads_do_not_change_a_bit(make_store: Callable[..., Store], make_config: MakeConfig, tmp_path: Path) -> None:
    """Batches large enough that every operation runs in parallel where it can."""
    items = torch.randint(90, (60, 30), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [(user, item, time) for user, row in enumerate(items) for time, item in enumerate(row)]
    store = make_store(pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"))
    config = make_config(
        "train.max_steps=3",
        "train.batch_size=128",
        "train.validate_users=1",
        "loss.queue_size=256",
        "history.max_length=20",
        "model.embedding_dim=32",
    )
    torch.set_num_threads(2)
    runs = [train(store.path, tmp_path / name, config, console=QUIET) for name in "ab"]
    assert content(runs[0])["metrics.jsonl"] == content(runs[1])["metrics.jsonl"]
    assert weights(runs[0]).read_bytes() == weights(runs[1]).read_bytes()


def test_the_device() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there_is_refused(store: Store, make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.device='cuda': no CUDA device is available"):
        train(store.path, tmp_path / "run", make_config("train.device='cuda'"), console=QUIET)
