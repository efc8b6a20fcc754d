"""Training, top to bottom: build, resume or warm-start, step, validate, stop early, keep the best weights.

Takes a store and a configuration; writes a run (see `prismrec.model.run`).
"""

import contextlib
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from prismrec.artifact import alone
from prismrec.atomic import naming_full_disk
from prismrec.config import Config
from prismrec.data.history import stored_histories
from prismrec.data.loader import ExampleLoader
from prismrec.data.store import Store
from prismrec.data.targets import TrainBatch
from prismrec.data.windows import WindowLoader
from prismrec.errors import ArtifactError, ConfigError, DataError, TrainingError
from prismrec.evaluate.evaluator import recalls_at_k
from prismrec.evaluate.queries import make_queries
from prismrec.model.encode import encode_items, encode_users
from prismrec.model.multi_interest import MultiInterestModel
from prismrec.model.run import CONFIG, KIND, build_model, save_run, write_config
from prismrec.train.checkpoint import (
    CHECKPOINT,
    Checkpoint,
    Progress,
    check_finite,
    load_checkpoint,
    remove_leftovers,
    save_checkpoint,
)
from prismrec.train.continuation import (
    EarlierRun,
    check_same_model,
    continued_settings,
    first_new_events,
    open_earlier_run,
    with_new_targets,
)
from prismrec.train.distributed import ALONE, Ranks, choose_device, join_ranks
from prismrec.train.hardware import deterministic_algorithms, has_bfloat16, keep_freed_memory, trains_in_bfloat16
from prismrec.train.logs import Silence, TrainingLog
from prismrec.train.optimizers import Optimizers
from prismrec.train.settings import resolve_config
from prismrec.train.step import TrainStep
from prismrec.train.warm_start import OlderRun, open_older_run, take_over
from prismrec.train.watch import NOTABLE, SLOWER

_TRIED = 256  # users, where there is no validation


def train(
    store: Path,
    out: Path,
    config: Config | None = None,
    *,
    resume: bool = False,
    warm_start: Path | None = None,
    continue_from: Path | None = None,
    console: Console | None = None,
) -> Path:
    """Train a model and write the run directory.

    Where torchrun has started several processes, all call this and train together: the embedding tables are divided
    among them, and each takes its part of every batch. If torchrun starts them again, they go on.

    Args:
        store: a prepared store.
        out: the run directory; must not hold a run unless `resume`.
        config: the settings; with `resume`, None means those of the run.
        resume: go on from the latest checkpoint; on a CPU the losses are bit-identical to an uninterrupted run.
            A finished run stays as it is.
        warm_start: an older run whose weights are loaded where name and shape fit; the rest is named.
        continue_from: a run on an earlier state of the store, before something was appended: its weights, optimisers
            and queue go on, on the events that are new to it.
        console: where progress is shown; standard error by default.

    Returns:
        `out`.

    Raises:
        ArtifactError: `out` holds a run already, the store or a checkpoint is damaged, or `resume` on another store.
        ConfigError: `resume` with other settings than the run's, `continue_from` with another model, or a device that
            is not there.
        TrainingError: there are no examples, or the loss or its gradient is not finite.
        RankError: another of several processes failed, or is gone.
    """
    if warm_start is not None and continue_from is not None:
        raise ConfigError("--warm-start, --continue-from: expected one of them, found both; a run begins as one other")
    with join_ranks() as ranks, naming_full_disk(out), contextlib.ExitStack() as stack:
        console = (console or Console(stderr=True)) if ranks.first else Console(quiet=True)
        opened = ranks.together(lambda: Store.open(store))
        has_begun = ranks.on_first(lambda: (out / CONFIG).exists())
        resume = resume or ranks.restarted
        older = ranks.together(lambda: _open_older(warm_start, continue_from))
        if isinstance(older, EarlierRun) and not (resume and has_begun and config is None):
            config = ranks.together(partial(_continued, config, opened, older))
        settings = ranks.on_first(
            lambda: resolve_config(opened, out, config, resume=resume, older=older and older.config)
        )
        if settings.train.deterministic:
            stack.enter_context(deterministic_algorithms())
        if resume and not has_begun:
            console.print(f"{out}: no checkpoint to resume from, training starts at step 0", markup=False)
        trainer = Trainer(opened, out, settings, console, ranks)
        if trainer.bfloat16 and not has_bfloat16(trainer.device):
            emulates = f"train.precision='bfloat16': {trainer.device} only emulates it; float32 is many times faster"
            console.print(emulates, soft_wrap=True)
        ranks.on_first(lambda: stack.enter_context(_begun_alone(out, has_begun)))
        if ranks.size > 1 and not has_begun:
            # all weights are in the memory of one process, once, and go to the others as a checkpoint does
            whole = partial(Trainer, opened, out, settings, console, device=torch.device("cpu"))
            ranks.on_first(lambda: whole().begin(older))
        if ranks.size > 1 or has_begun:
            trainer.restore()
        else:
            trainer.begin(older)
        if trainer.progress.finished:
            console.print(
                f"{out}: training finished at step {trainer.progress.step}, nothing is left to resume", markup=False
            )
        else:
            trainer.run()
    return out


@contextlib.contextmanager
def _begun_alone(out: Path, has_begun: bool) -> Iterator[None]:
    """Make the run directory if need be, and keep other trainings out of it, if it is as it was found."""
    out.mkdir(parents=True, exist_ok=True)
    with alone(out, KIND):
        if (out / CONFIG).exists() != has_begun:
            raise ArtifactError(f"{out}: expected that nobody else trains here, found a run begun just now; see to it")
        remove_leftovers(out)
        yield


def _open_older(warm_start: Path | None, continue_from: Path | None) -> OlderRun | EarlierRun | None:
    if continue_from is not None:
        return open_earlier_run(continue_from)
    return None if warm_start is None else open_older_run(warm_start)


def _continued(config: Config | None, store: Store, earlier: EarlierRun) -> Config:
    return with_new_targets(config or continued_settings(earlier.path), store, earlier)


class Trainer:
    """The state of one training and the loop over it.

    Args:
        store: what is trained on.
        out: the run directory.
        config: the full settings.
        console: where progress is shown.
        ranks: the processes that train together; the tables of several have no weights before `restore`.
        device: the configured one by default.
    """

    def __init__(
        self,
        store: Store,
        out: Path,
        config: Config,
        console: Console,
        ranks: Ranks = ALONE,
        device: torch.device | None = None,
    ) -> None:
        self.store, self.out, self.config, self.console, self.ranks = store, out, config, console, ranks
        settings = config.train
        self.device = device or choose_device(settings.device, ranks.place)
        self.bfloat16 = trains_in_bfloat16(settings.precision, self.device, config.model.embedding_dim)
        keep_freed_memory()
        torch.manual_seed(settings.seed)
        self.model = self._build_model()
        self.step = TrainStep(config, store, self.model).to(self.device)
        kind = ExampleLoader if config.model.encoder.kind == "none" else WindowLoader
        since = None if settings.new_since is None else first_new_events(store, settings.new_since)
        self.loader = kind(
            store,
            config.history,
            settings.batch_size,
            settings.seed,
            new_only=config.exclude_seen,
            since=since,
            part=(ranks.rank, ranks.size),
        )
        if not self.loader.num_examples:
            if since is not None:
                raise TrainingError(
                    f"{store.path}: nothing that followed part {settings.new_since} is a target of training: append "
                    "newer events, or give later moments of the split (--valid-from and --test-from) with them"
                )
            raise TrainingError(
                f"{store.path}: no training event has an earlier one of the same user with another item: nothing to "
                "learn from (with exclude_seen=false the same item would do)"
            )
        self.total_steps = min(settings.max_steps or 2**62, settings.epochs * self.loader.steps_per_epoch)
        self.validate_every = settings.validate_every or self.loader.steps_per_epoch
        self.has_validation = self._find_validation()
        self.optimizers = Optimizers([self.model, self.step.objective], settings, self.total_steps, ranks)
        self.progress = Progress()

    def begin(self, older: OlderRun | EarlierRun | None = None) -> None:
        """Write the state before the first step, then the configuration, which makes `out` a run.

        Args:
            older: a run whose weights are taken where they fit, or one to go on from.
        """
        if isinstance(older, EarlierRun):
            self.go_on_from(older)
        elif older is not None:
            take_over(older, self.model, self.step.objective, self.console)
        self._save_checkpoint()
        write_config(self.out, self.config)

    def restore(self) -> None:
        """Continue from the latest checkpoint.

        Raises:
            ArtifactError: it is missing or damaged, or of another store.
        """
        checkpoint = self.ranks.together(lambda: load_checkpoint(self.out, checksums=self.ranks.first))
        if checkpoint is None:
            raise ArtifactError(f"{self.out / CHECKPOINT}: expected the checkpoint of this run, found none")
        if checkpoint.store != self.store.manifest["files"]:
            raise ArtifactError(
                f"{self.store.path}: expected the store that {self.out} was started on, found other data; start a new "
                "run with this one as its warm start"
            )
        if checkpoint.config not in ({}, self.config.model_dump(mode="json")):
            raise ArtifactError(
                f"{self.out / CONFIG}: expected the settings that the run was started with, found others; put the file "
                "back as it was"
            )
        for module, state in zip((self.model, self.step.objective), checkpoint.modules, strict=True):
            module.load_state_dict(state)
        self.optimizers.load_state_dict(checkpoint.optimizers)
        self._take_queue(checkpoint)
        self.progress = checkpoint.progress
        self._save_weights_if_best()  # the process may have ended after the checkpoint and before that

    def go_on_from(self, earlier: EarlierRun) -> None:
        """Take over the kept weights of a run, and the state of the rest of its training."""
        check_same_model(self.config, earlier)
        self.model.load_state_dict(earlier.weights)
        self.step.objective.load_state_dict(earlier.checkpoint.modules[1])
        self.optimizers.take_over(earlier.checkpoint.optimizers)
        self._take_queue(earlier.checkpoint)
        new = self.loader.num_examples
        self.console.print(
            f"goes on from {earlier.path}, on {new:,} targets that are new to it", soft_wrap=True, markup=False
        )

    def _take_queue(self, checkpoint: Checkpoint) -> None:
        queues = checkpoint.queue if checkpoint.queue.ndim == 2 else checkpoint.queue[None]
        self.step.negatives.queue = queues[self.ranks.rank % len(queues)].to(self.device)

    def run(self) -> None:
        """Train until the last step or until validation stops improving."""
        progress = self.progress
        with self._open_log() as log:
            while not progress.finished:
                for batch in self.loader.batches(progress.epoch, progress.step_in_epoch):
                    self._train_on(batch, log)
                    if self._look_up(log):
                        break
                else:
                    progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0
        self.console.print(
            f"{self.out}: trained {progress.step} steps, kept the weights of step {progress.best_step}", markup=False
        )
        if progress.watch.rise > NOTABLE:
            self.console.print(f"  the loss ended {progress.watch.rise:.2f} above its lowest: {SLOWER}", soft_wrap=True)

    def _open_log(self) -> TrainingLog | Silence:
        if not self.ranks.first:
            return Silence()
        settings = self.config.train
        board = not settings.deterministic
        return TrainingLog(self.out, self.progress, self.total_steps, settings.batch_size, self.console, board=board)

    def _build_model(self) -> MultiInterestModel:
        if self.ranks.size == 1:
            return build_model(self.config, self.store.schema)
        from prismrec.train.sharded import shard_tables  # TorchRec need not be installed

        with torch.device("meta"):  # whole tables may be too large
            model = build_model(self.config, self.store.schema)
        shard_tables(model, self.config.train, self.ranks, self.device)
        return model

    def _train_on(self, batch: TrainBatch, log: TrainingLog | Silence) -> None:
        self.model.train()
        step = self.progress.step + 1
        logged = step % self.config.train.log_every == 0
        # dropout and sampled negatives are drawn from seed and step alone, so that training resumes at any step
        torch.manual_seed((self.config.train.seed << 32) + step)
        self.optimizers.prepare()
        loss, metrics = self.step(batch, self.bfloat16, with_metrics=logged and self.ranks.first)
        self.optimizers.backward(loss)
        norm = self.optimizers.clip()
        found, its_norm = torch.stack([loss.detach(), norm]).tolist()  # a GPU is waited for once
        if not math.isfinite(found + its_norm):
            raise TrainingError(
                f"step {step}: the loss is {found:.4g} and its gradient's norm {its_norm:.4g}, expected finite "
                f"numbers; {SLOWER} (the last checkpoint is kept)"
            )
        self._watch(step, found - math.log(self.step.num_negatives))
        rate = self.optimizers.learning_rate
        self.optimizers.step()
        self.progress.step = step
        self.progress.step_in_epoch += 1
        log.advance()
        if logged:
            log.write("train", {"loss": loss.detach(), **metrics, "gradient_norm": norm, "learning_rate": rate})

    def _watch(self, step: int, loss: float) -> None:
        """Say it once if the loss climbs."""
        watch = self.progress.watch
        if watch.see(loss) > NOTABLE and not watch.reported:
            self.console.print(f"step {step}: the loss is {watch.rise:.2f} above its lowest; {SLOWER} if it stays so")
            watch.reported = True

    def _look_up(self, log: TrainingLog | Silence) -> bool:
        """Validate, and save what must not be lost, where it is time; true when training is finished.

        The checkpoint comes before the weights of the same step: whenever the process is killed, the
        checkpoint tells which weights belong to it.
        """
        progress = self.progress
        last = progress.step == self.total_steps
        if self.has_validation and (last or progress.step % self.validate_every == 0):
            self._validate(log)
        elif last:
            self._try_model()
            progress.best_step = progress.step
        progress.finished |= last
        is_best = progress.best_step == progress.step
        if is_best or progress.finished or progress.step % self.config.train.checkpoint_every == 0:
            progress.log_bytes = log.size()
            self._save_checkpoint()
        self._save_weights_if_best()
        return progress.finished

    def _validate(self, log: TrainingLog | Silence) -> None:
        progress, settings = self.progress, self.config.train
        self.model.eval()
        own = recalls_at_k(
            self.model,
            self.store,
            "valid",
            settings.validate_k,
            history=self.config.history,
            exclude_seen=self.config.exclude_seen,
            max_users=settings.validate_users,
            seed=settings.seed,
            part=(self.ranks.rank, self.ranks.size),
        )
        recall = float(np.mean(np.concatenate(self.ranks.gather(own))))
        log.write("valid", {f"recall@{settings.validate_k}": recall})
        if recall > progress.best_recall:
            progress.best_recall, progress.best_step, progress.validations_without_gain = recall, progress.step, 0
        else:
            progress.validations_without_gain += 1
            progress.finished = progress.validations_without_gain >= settings.patience

    def _try_model(self) -> None:
        """Encode items and some users, which refuses what validation would."""
        self.model.eval()
        encode_items(self.model, self.store)
        users = np.arange(min(_TRIED, self.store.num_users))
        histories = stored_histories(self.store, users, self.store.manifest["max_time"], self.config.history)
        encode_users(self.model, histories, self.store.item_features)

    def _find_validation(self) -> bool:
        settings = self.config.train
        try:
            make_queries(
                self.store,
                "valid",
                exclude_seen=self.config.exclude_seen,
                before_target_time=self.config.history.before_target_time,
                max_users=settings.validate_users,
                seed=settings.seed,
            )
        except DataError as error:
            self.console.print(f"no validation, so the last weights will be kept: {error}", markup=False)
            return False
        return True

    def _save_weights_if_best(self) -> None:
        progress = self.progress
        if not 0 < progress.best_step == progress.step:
            return
        name, weights = f"valid_recall@{self.config.train.validate_k}", self.model.state_dict()  # by all ranks
        recall = {name: progress.best_recall} if self.has_validation else {}
        write = partial(save_run, self.out, self.config, self.store, weights, progress.best_step, **recall)
        self.ranks.on_first(write)

    def _save_checkpoint(self) -> None:
        modules = [module.state_dict() for module in (self.model, self.step.objective)]
        self.ranks.on_first(lambda: check_finite(modules, self.progress.step))
        optimizers, files = self.optimizers.state_dict(), self.store.manifest["files"]
        queue = self.step.negatives.queue
        if self.config.loss.negatives_scope == "local" and self.ranks.size > 1:
            queue = torch.stack(self.ranks.gather(queue.cpu()))  # each is on a GPU of its own
        settings = self.config.model_dump(mode="json")
        checkpoint = Checkpoint(self.progress, modules, optimizers, queue, files, settings)
        self.ranks.on_first(lambda: save_checkpoint(self.out, checkpoint))
