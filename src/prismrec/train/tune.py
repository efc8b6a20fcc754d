"""Search for hyper-parameters: Optuna proposes settings, each is trained, and the best validation recall counts.

Takes a store and a space (see `space.py`); writes a directory, and goes on with what is there. Test data is never
looked at.

    search/
    study.db       Optuna's study, for its own tools too
    trials/000/    the run of the first trial
    trials.csv     a row for each trial: its settings and recall
    best.toml      the settings of the best one, for `train --config`

Each proposal depends on the seed and on earlier trials alone, and training resumes exactly: on a CPU, a search that was
killed ends as one that was not.
"""

import importlib.util
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table

from prismrec.artifact import alone, read_manifest
from prismrec.atomic import replacing_file
from prismrec.config import Config
from prismrec.data.store import Store
from prismrec.errors import ArtifactError, ConfigError, TrainingError
from prismrec.evaluate.queries import make_queries
from prismrec.model.run import CONFIG, KIND
from prismrec.toml import dump_toml, override
from prismrec.train.space import Space, read_space
from prismrec.train.trainer import train

if TYPE_CHECKING:  # an extra
    from optuna import Study
    from optuna.trial import FrozenTrial

STUDY, TRIALS, TABLE, BEST = "study.db", "trials", "trials.csv", "best.toml"
_NAME, _MADE_OF = "prismrec", "made_of"


class Tuned(NamedTuple):
    """What a search found."""

    config: Config
    """The best settings."""
    recall: float
    """Their recall@`train.validate_k` on the validation split."""
    trials: pl.DataFrame
    """`trial, recall, seconds`, a column for each key of the space, and `given_up`: why, where there is no recall."""


def tune(
    store: Path,
    out: Path,
    space: Path | Mapping[str, Any],
    *,
    trials: int = 20,
    config: Config | None = None,
    seed: int = 0,
    console: Console | None = None,
) -> Tuned:
    """Search for the settings of the best validation recall.

    Args:
        store: a prepared store.
        out: the directory of the search; one with the same settings goes on until it has so many trials.
        space: keys and their values, as a TOML file or a mapping; see `space.py`.
        trials: how many settings to try, those included that turn out not to go together or not to train.
        config: the settings that all trials share.
        seed: of what is proposed.
        console: where progress is shown; standard error by default.

    Raises:
        ConfigError: the space is not valid, `out` holds another search, or Optuna is not installed.
        ArtifactError: the store is damaged, or `out` holds something else.
        DataError: the store has nothing to validate by.
        TrainingError: no trial could be trained.
    """
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError("tune: expected the package optuna, found none; pip install 'prismrec[tune]'")
    config = config or Config()
    read, opened = read_space(space, config), Store.open(store)
    make_queries(  # or there is nothing to compare trials by
        opened, "valid", exclude_seen=config.exclude_seen, before_target_time=config.history.before_target_time
    )
    made_of = {
        "config": config.model_dump(mode="json"),
        "space": {key: values.model_dump(mode="json") for key, values in read.items()},
        "seed": seed,
        "store": opened.manifest["files"],
    }
    _make_place(out)
    with alone(out, "search"), _open_study(out / STUDY, made_of) as study:
        search = _Search(store, out, config, read, study, console or Console(stderr=True), trials)
        search.finish_interrupted()
        while search.num_done < trials:
            search.propose(seed)
        return search.result()


def print_trials(tuned: Tuned, console: Console, most: int = 10) -> None:
    """Print the best trials as a table."""
    best = tuned.trials.sort("recall", descending=True, nulls_last=True, maintain_order=True).head(most)
    table = Table(title=f"{len(tuned.trials)} trials, the best first", title_justify="left", box=box.SIMPLE_HEAD)
    for name in best.columns[:-1]:
        table.add_column(name, justify="right", overflow="fold")
    for *values, _ in best.iter_rows():
        table.add_row(*("" if value is None else _short(value) for value in values))
    console.print(table)


class _Search:
    """A study and the runs of its trials."""

    def __init__(
        self, store: Path, out: Path, config: Config, space: Space, study: "Study", console: Console, trials: int
    ) -> None:
        self._store, self._out, self._config, self._study = store, out, config, study
        self._distributions = {key: values.distribution() for key, values in space.items()}
        self._console, self._trials = console, trials
        self._seconds: list[float] = []

    @property
    def num_done(self) -> int:
        return len(self._done())

    def propose(self, seed: int) -> None:
        """Try the next settings."""
        from optuna.samplers import TPESampler

        # a new sampler for each trial, or a search that goes on would draw again what it began with
        state = np.random.SeedSequence([seed, self.num_done]).generate_state(1)
        self._study.sampler = TPESampler(seed=int(state[0]))
        trial = self._study.ask(self._distributions)
        self._try(trial.number, trial.params)

    def finish_interrupted(self) -> None:
        """Go on with the trial at which a search was killed."""
        from optuna.trial import TrialState

        for trial in self._study.get_trials(states=[TrialState.RUNNING]):
            if trial.params.keys() == self._distributions.keys():
                self._try(trial.number, trial.params)
            else:
                self._study.tell(trial.number, state=TrialState.FAIL)  # killed before all was proposed

    def result(self) -> Tuned:
        """The best of all trials.

        Raises:
            TrainingError: there is none.
        """
        best = self._best()
        if best is None:
            reasons = list(self._reasons().values())
            raise TrainingError(
                f"{self._out}: none of {self.num_done} trials could be trained; the last: {reasons[-1]}"
            )
        return Tuned(override(self._config, best.params), float(best.value or 0), self._table())

    def _try(self, number: int, params: dict[str, Any]) -> None:
        """Train with these settings, or give them up, and write how the search stands."""
        self._announce(number, params)
        started = time.perf_counter()
        try:
            recall = self._recall(number, params)
        except (ConfigError, TrainingError) as error:
            self._give_up(number, str(error))
        else:
            self._study.tell(number, recall)
            self._console.print(f"  recall@{self._config.train.validate_k} {recall:.4f}")
        self._seconds.append(time.perf_counter() - started)
        self._write()

    def _recall(self, number: int, params: dict[str, Any]) -> float:
        """That of the run with these settings, which is trained unless an earlier trial had the same."""
        twin = next((trial for trial in self._done() if trial.params == params), None)
        if twin is not None and twin.value is None:
            raise TrainingError(self._reasons()[twin.number])
        if twin is not None and twin.value is not None:
            return twin.value
        run, config = self._out / TRIALS / f"{number:03d}", override(self._config, params, "settings")
        train(self._store, run, config, resume=(run / CONFIG).exists(), console=self._console)
        return float(read_manifest(run, KIND)[f"valid_recall@{config.train.validate_k}"])

    def _give_up(self, number: int, reason: str) -> None:
        from optuna.trial import TrialState

        self._study.set_user_attr(f"reason {number}", reason)
        self._study.tell(number, state=TrialState.PRUNED)
        self._console.print(f"  given up: {reason}", markup=False, soft_wrap=True)

    def _announce(self, number: int, params: dict[str, Any]) -> None:
        best, left = self._best(), self._trials - self.num_done
        line = f"trial {number:03d} · {self.num_done + 1} of {self._trials}"
        if best is not None:
            line += f" · best recall {best.value:.4f} in {best.number:03d}"
        if self._seconds:
            line += f" · about {timedelta(seconds=round(float(np.mean(self._seconds)) * left))} left"
        settings = " ".join(f"{key}={_short(value)}" for key, value in params.items())
        self._console.print(f"{line}\n  {settings}", markup=False, highlight=False, soft_wrap=True)

    def _write(self) -> None:
        best = self._best()
        if best is not None:
            with replacing_file(self._out / BEST) as temporary:
                temporary.write_text(dump_toml(override(self._config, best.params)))
        with replacing_file(self._out / TABLE) as temporary:
            self._table().write_csv(temporary)

    def _done(self) -> list["FrozenTrial"]:
        from optuna.trial import TrialState

        return self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED])

    def _best(self) -> "FrozenTrial | None":
        """The first of the best."""
        measured = [trial for trial in self._done() if trial.value is not None]
        return max(measured, key=lambda trial: trial.value or 0, default=None)

    def _reasons(self) -> dict[int, str]:
        """Why trials were given up, by their number."""
        said = {name.partition(" "): text for name, text in self._study.user_attrs.items()}
        return {int(number): text for (kind, _, number), text in said.items() if kind == "reason"}

    def _table(self) -> pl.DataFrame:
        done, reasons = self._done(), self._reasons()
        columns = {
            "trial": pl.Series([trial.number for trial in done], dtype=pl.Int64),
            "recall": pl.Series([trial.value for trial in done], dtype=pl.Float64),
            "seconds": pl.Series([trial.duration.total_seconds() if trial.duration else None for trial in done]),
            **{key: pl.Series([trial.params[key] for trial in done], strict=False) for key in self._distributions},
            "given_up": pl.Series([reasons.get(trial.number) for trial in done], dtype=pl.String),
        }
        return pl.DataFrame(columns)


def _make_place(out: Path) -> None:
    """Refuse a directory of something else; make one where there is none."""
    if out.exists() and not (out / STUDY).exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ArtifactError(f"{out}: expected a new directory or that of a search, found something else")
    out.mkdir(parents=True, exist_ok=True)


@contextmanager
def _open_study(path: Path, made_of: dict[str, Any]) -> Iterator["Study"]:
    """Open the study in a file, or begin one."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        try:
            study = optuna.create_study(storage=storage, study_name=_NAME, direction="maximize", load_if_exists=True)
            _check_same(study, made_of, path.parent)
            yield study
        finally:
            storage.remove_session()
            storage.engine.dispose()
    except SQLAlchemyError as error:
        raise ArtifactError(f"{path}: expected a study of Optuna, could not read it") from error
    finally:
        optuna.logging.set_verbosity(verbosity)


def _check_same(study: "Study", made_of: dict[str, Any], out: Path) -> None:
    """Refuse to go on with a search of something else."""
    earlier = study.user_attrs.get(_MADE_OF)
    if earlier is None:
        study.set_user_attr(_MADE_OF, made_of)
        return
    for name, value in made_of.items():
        if earlier[name] != value:
            raise ConfigError(
                f"{out}: holds a search with another {name}; choose another --out, or go on with that one"
            )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
