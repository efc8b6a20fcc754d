"""Training, top to bottom: build, resume or warm-start, step, validate, stop early, keep the best weights.

Takes a store and a configuration; writes a run (see `prismrec.model.run`).
"""

from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from prismrec.config import Config, load_config
from prismrec.data.loader import ExampleLoader, TrainBatch
from prismrec.data.store import Store
from prismrec.errors import ArtifactError, ConfigError, TrainingError
from prismrec.evaluate.evaluator import recall_at_k
from prismrec.model.multi_interest import MultiInterestModel, resolve_primes
from prismrec.model.run import CONFIG, load_run, save_run, write_config
from prismrec.train.checkpoint import Checkpoint, Progress, load_checkpoint, load_what_fits, save_checkpoint
from prismrec.train.logs import TrainingLog
from prismrec.train.optimizers import Optimizers
from prismrec.train.step import TrainStep


def train(
    store: Path,
    out: Path,
    config: Config | None = None,
    *,
    resume: bool = False,
    warm_start: Path | None = None,
    console: Console | None = None,
) -> Path:
    """Train a model and write the run directory.

    Args:
        store: a prepared store.
        out: the run directory; must not hold a run unless `resume`.
        config: the settings; with `resume`, None means those of the run.
        resume: go on from the latest checkpoint; on a CPU the losses are bit-identical to an uninterrupted run.
        warm_start: an older run whose weights are loaded where name and shape fit; the rest is named.
        console: where progress is shown; standard error by default.

    Returns:
        `out`.

    Raises:
        ArtifactError: `out` holds a run already, or the store or a checkpoint is damaged.
        ConfigError: `resume` with other settings than the run's, or a device that is not there.
        TrainingError: there are no examples, or the loss is not finite.
    """
    console = console or Console(stderr=True)
    opened = Store.open(store)
    resolved = _resolve_config(opened, out, config, resume)
    trainer = Trainer(opened, out, resolved, console)
    if resume:
        trainer.restore()
    elif warm_start is not None:
        trainer.warm_start(warm_start)
    trainer.run()
    return out


class Trainer:
    """The state of one training and the loop over it."""

    def __init__(self, store: Store, out: Path, config: Config, console: Console) -> None:
        self.store, self.out, self.config, self.console = store, out, config, console
        settings = config.train
        self.device = choose_device(settings.device)
        bfloat16_by_default = settings.precision == "auto" and self.device.type == "cuda"
        self.bfloat16 = settings.precision == "bfloat16" or bfloat16_by_default
        torch.manual_seed(settings.seed)
        self.model = MultiInterestModel(config.model, store.schema, config.history.max_length)
        self.step = TrainStep(config, store, self.model).to(self.device)
        self.loader = ExampleLoader(store, config.history, settings.batch_size, settings.seed)
        if not self.loader.num_examples:
            raise TrainingError(f"{store.path}: no user has two training events, so there is nothing to learn from")
        self.total_steps = min(settings.max_steps or 2**62, settings.epochs * self.loader.steps_per_epoch)
        self.validate_every = settings.validate_every or self.loader.steps_per_epoch
        starts, ends = store.split_bounds("valid")
        self.has_validation = bool((ends > starts).any())
        self.optimizers = Optimizers([self.model, self.step.objective], settings, self.total_steps)
        self.progress = Progress()

    def restore(self) -> None:
        """Continue from the latest checkpoint, if there is one."""
        checkpoint = load_checkpoint(self.out)
        if checkpoint is None:
            self.console.print(f"{self.out}: no checkpoint yet, training starts at step 0")
            return
        for module, state in zip((self.model, self.step.objective), checkpoint.modules, strict=True):
            module.load_state_dict(state)
        self.optimizers.load_state_dict(checkpoint.optimizers)
        self.step.queue = checkpoint.queue.to(self.device)
        self.progress = checkpoint.progress

    def warm_start(self, path: Path) -> None:
        """Load what fits of an older run and name what does not."""
        old = load_run(path).model.state_dict()
        missing = load_what_fits(self.model, old)
        self.console.print(f"warm start from {path}: {len(old) - len(missing)} of {len(old)} tensors fit")
        for name in missing:
            self.console.print(f"  starts afresh: {name}")

    def run(self) -> None:
        """Train until the last step or until validation stops improving."""
        progress, settings = self.progress, self.config.train
        with TrainingLog(self.out, progress, self.total_steps, settings.batch_size, self.console) as log:
            while progress.step < self.total_steps and not progress.finished:
                for batch in self.loader.batches(progress.epoch, progress.step_in_epoch):
                    self._train_on(batch, log)
                    if progress.step % self.validate_every == 0 or progress.step == self.total_steps:
                        self._validate(log)
                    if progress.step % settings.checkpoint_every == 0:
                        self._save_checkpoint(log)
                    if progress.step >= self.total_steps or progress.finished:
                        break
                else:
                    progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0
            if not self.has_validation:
                self._save_weights()
            progress.finished = True
            self._save_checkpoint(log)

    def _train_on(self, batch: TrainBatch, log: TrainingLog) -> None:
        self.model.train()
        logged = (self.progress.step + 1) % self.config.train.log_every == 0
        loss, metrics = self.step(batch, self.bfloat16, with_metrics=logged)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"step {self.progress.step + 1}: the loss is {loss.item()}, expected a finite number; lower "
                "train.learning_rate or train.table_learning_rate, or raise loss.temperature "
                "(the last checkpoint is kept)"
            )
        loss.backward()
        self.optimizers.step()
        self.progress.step += 1
        self.progress.step_in_epoch += 1
        log.advance()
        if logged:
            log.write("train", {"loss": loss.detach(), **metrics, "learning_rate": self.optimizers.learning_rate})

    def _validate(self, log: TrainingLog) -> None:
        if not self.has_validation:
            return
        progress, settings = self.progress, self.config.train
        self.model.eval()
        recall = recall_at_k(
            self.model,
            self.store,
            "valid",
            settings.validate_k,
            history=self.config.history,
            exclude_seen=self.config.exclude_seen,
            max_users=settings.validate_users,
            seed=settings.seed,
        )
        log.write("valid", {f"recall@{settings.validate_k}": recall})
        if recall > progress.best_recall:
            progress.best_recall, progress.best_step, progress.validations_without_gain = recall, progress.step, 0
            self._save_weights()
        else:
            progress.validations_without_gain += 1
            progress.finished = progress.validations_without_gain >= settings.patience

    def _save_weights(self) -> None:
        best: dict[str, float] = {"best_step": self.progress.best_step or self.progress.step}
        if self.has_validation:
            best[f"valid_recall@{self.config.train.validate_k}"] = self.progress.best_recall
        save_run(self.out, self.config, self.store, self.model, **best)

    def _save_checkpoint(self, log: TrainingLog) -> None:
        self.progress.log_bytes = log.size()
        modules = [module.state_dict() for module in (self.model, self.step.objective)]
        save_checkpoint(self.out, Checkpoint(self.progress, modules, self.optimizers.state_dict(), self.step.queue))


def choose_device(name: str) -> torch.device:
    """`auto` takes a GPU where there is one.

    Raises:
        ConfigError: cuda is asked for and not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device='cuda': no CUDA device is available; use train.device=auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _resolve_config(store: Store, out: Path, config: Config | None, resume: bool) -> Config:
    """Size the hash tables from the store, or take the run's own configuration to resume."""
    if (out / CONFIG).exists() and not resume:
        raise ArtifactError(f"{out}: holds a run already; add --resume to continue it, or choose another --out")
    if out.exists() and not (out / CONFIG).exists() and any(out.iterdir()):
        raise ArtifactError(f"{out}: expected a new or empty directory for the run; choose another --out")
    fresh = _with_primes(config or Config(), store)
    if not (out / CONFIG).exists():
        write_config(out, fresh)
        return fresh
    saved = load_config(out / CONFIG)
    if config is not None and fresh != saved:
        raise ConfigError(f"--resume: expected the settings of {out / CONFIG}; leave out --config and --set")
    return saved


def _with_primes(config: Config, store: Store) -> Config:
    distinct = {
        name: len(np.unique(store.item_features[:, column])) for column, name in enumerate(store.schema.item_features)
    }
    for column, name in enumerate(store.schema.context_features):
        distinct[name] = 0 if store.context is None else len(np.unique(store.context[:, column]))
    if config.model.user_id:
        distinct["user_id"] = store.num_users
    unknown = config.model.hashing.primes.keys() - distinct.keys()
    if unknown:
        raise ConfigError(
            f"model.hashing.primes: no feature is named {sorted(unknown)[0]!r}; the store has {', '.join(distinct)}"
        )
    hashing = resolve_primes(config.model.hashing, distinct)
    return config.model_copy(update={"model": config.model.model_copy(update={"hashing": hashing})})
