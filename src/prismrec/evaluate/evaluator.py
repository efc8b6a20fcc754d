"""Evaluation of trained models over the full catalogue, beside baselines under the same protocol.

Takes runs on one store; gives a `Report`. Every method answers the same queries with lists of the
same length from the whole catalogue, with the same items left out.
"""

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from prismrec.config import HistoryConfig
from prismrec.data.store import Split, Store
from prismrec.errors import ArtifactError, ConfigError
from prismrec.evaluate.baselines.covisitation import covisitation, covisitation_scorer
from prismrec.evaluate.baselines.popular import popularity_scorer, recent_item_counts
from prismrec.evaluate.bootstrap import CONFIDENCE, NUM_RESAMPLES
from prismrec.evaluate.candidates import find_candidates
from prismrec.evaluate.examples import choose_examples
from prismrec.evaluate.findings import Report
from prismrec.evaluate.labelled import labelled_auc
from prismrec.evaluate.measure import Catalogue, recall_of
from prismrec.evaluate.methods import Methods
from prismrec.evaluate.queries import Queries, make_queries
from prismrec.evaluate.retrieval import Scorer
from prismrec.evaluate.summary import read_curves, summarise
from prismrec.model.multi_interest import MultiInterestModel
from prismrec.model.run import Run, load_run

HEADLINE_K = 50
DEFAULT_KS = (10, 50, 100)


def evaluate(
    run: Path,
    split: Split,
    ks: Sequence[int] | None = None,
    against: Sequence[Path] = (),
    *,
    popularity: Sequence[float] = (),
    pairs: pl.DataFrame | None = None,
    dial: bool = True,
    examples: int = 2,
    seed: int = 0,
    date: datetime | None = None,
    console: Console | None = None,
) -> Report:
    """Evaluate a run, other runs and the baselines on a split, over the full catalogue.

    Whether seen items are left out, and whether histories end before the target's time, is as
    configured in `run`; other runs keep their own history length.

    Args:
        run: the run of interest.
        split: "valid" or "test".
        ks: lengths of the lists; by default 10, 50 and 100, or what the catalogue allows.
        against: other runs on the same store, for example the same model with V = 1.
        popularity: positions of this dial to evaluate the run at, each a method; by default the configured one.
        pairs: labelled pairs `user_id, item_id, label`, for the models' AUC.
        dial: also rank the first run's vectors at positions of its dial from 0 to 1, for accuracy against coverage.
        examples: users shown with good lists, and as many with bad ones; 0 for a report that shows nobody.
        seed: of the bootstrap and of the examples.
        date: written into the report; by default SOURCE_DATE_EPOCH, or now.
        console: where progress is shown; standard error by default.

    Raises:
        ConfigError: a k is below 1 or above the catalogue's size, or a dial is not between 0 and 1.
        ArtifactError: a run is missing or damaged, or on another store.
        DataError: the split is unknown or holds no user with a target, or a labelled pair is not valid.
    """
    date = date or _today()
    runs = [load_run(run, popularity=position) for position in dict.fromkeys(popularity) or (None,)] + [
        load_run(path) for path in against
    ]
    store, config = runs[0].store, runs[0].config
    _check_same_store(runs)
    lengths = _checked_ks(ks, store)
    queries = make_queries(
        store, split, exclude_seen=config.exclude_seen, before_target_time=config.history.before_target_time
    )
    headline_k = HEADLINE_K if HEADLINE_K in lengths else lengths[len(lengths) // 2]
    aucs = [None if pairs is None else labelled_auc(other, pairs, split) for other in runs]
    names, catalogue = _names(runs), Catalogue.of(store)
    with _progress(console) as progress:
        methods = Methods(store, catalogue, queries, lengths, headline_k, seed, progress)
        first, looked_at = methods.model(names[0], runs[0], aucs[0])
        models = [first, *(methods.model(*each)[0] for each in zip(names[1:], runs[1:], aucs[1:], strict=True))]
        baselines = [methods.baseline(name, scorer) for name, scorer in _baselines(store, queries, catalogue.counts)]
        positions = methods.dial(names[0], runs[0], looked_at.encoded) if dial else []
    return Report(
        settings=_settings(
            runs,
            split=split,
            seed=seed,
            date=date.isoformat(timespec="seconds"),
            command=_command(run, split, lengths, against, popularity, dial, examples, seed),
        ),
        counts={"users": store.num_users, "items": store.num_items, "events": store.num_events, **queries.counts},
        ks=lengths,
        headline_k=headline_k,
        methods=[*models, *baselines],
        trade_offs=[*positions, *map(methods.as_is, [*models, *baselines])],
        curves=[curve for path in dict.fromkeys(each.path for each in runs) for curve in read_curves(path, path.name)],
        examples=choose_examples(store, queries, looked_at.candidates, headline_k, seed, examples),
        data=summarise(store, catalogue),
    )


def recalls_at_k(
    model: MultiInterestModel,
    store: Store,
    split: Split,
    k: int,
    history: HistoryConfig,
    exclude_seen: bool,
    max_users: int,
    seed: int,
    part: tuple[int, int] = (0, 1),
) -> np.ndarray:
    """Recall@k of a sample of users over the full catalogue: their mean is what training validates by.

    The sample depends on the seed alone, so that validations of one training compare. A k above the
    catalogue's size is the catalogue's size. Several processes take a part of the users each, (part, number of
    parts): the model is called as often for each part, with users of the first again where one has fewer.

    Raises:
        DataError: the split is unknown, or no sampled user has a history and a target in it.
    """
    queries = make_queries(
        store,
        split,
        exclude_seen=exclude_seen,
        before_target_time=history.before_target_time,
        max_users=max_users,
        seed=seed,
    )
    first, parts = part
    largest = -(-queries.num_users // parts)
    chosen = first + parts * np.arange(largest)
    own = queries.select(chosen % queries.num_users)
    k = min(k, store.num_items)
    lists = find_candidates(model, store, own, history, k).merged()
    return recall_of(lists, own.targets, k)[chosen < queries.num_users]


def _baselines(store: Store, queries: Queries, counts: np.ndarray) -> Iterator[tuple[str, Scorer]]:
    yield "all-time popular", popularity_scorer(counts)
    yield "recently popular", popularity_scorer(recent_item_counts(store), counts)
    yield "co-visitation", covisitation_scorer(store, queries, covisitation(store))


def _settings(runs: Sequence[Run], **call: Any) -> dict[str, Any]:
    config = runs[0].config
    return {
        **call,
        "run": str(runs[0].path),
        "runs": [str(run.path) for run in runs],
        "store": str(runs[0].store.path),
        "exclude_seen": config.exclude_seen,
        "before_target_time": config.history.before_target_time,
        "confidence": CONFIDENCE,
        "resamples": NUM_RESAMPLES,
        "config": config.model_dump(mode="json"),
    }


def _command(
    run: Path,
    split: str,
    ks: Sequence[int],
    against: Sequence[Path],
    popularity: Sequence[float],
    dial: bool,
    examples: int,
    seed: int,
) -> str:
    """The command line of an evaluation."""
    words = ["prismrec", "evaluate", run, "--split", split, "--k", ",".join(map(str, ks)), "--seed", seed]
    words += [word for path in against for word in ("--against", path)]
    words += ["--popularity", ",".join(f"{position:g}" for position in popularity)] if popularity else []
    words += [] if dial else ["--no-dial"]
    return shlex.join(map(str, [*words, "--examples", examples]))


def _names(runs: Sequence[Run]) -> list[str]:
    """Directory names with V and the dial, or whole paths where two runs would read the same."""
    details = [f"(V={run.config.model.num_interests}{_dial(run)})" for run in runs]
    names = [f"{run.path.name} {detail}" for run, detail in zip(runs, details, strict=True)]
    if len(set(names)) == len(names):
        return names
    return [f"{run.path} {detail}" for run, detail in zip(runs, details, strict=True)]


def _dial(run: Run) -> str:
    return f", popularity {run.config.popularity:g}" if run.config.popularity else ""


def _check_same_store(runs: Sequence[Run]) -> None:
    for other in runs[1:]:
        if other.store.manifest["files"] != runs[0].store.manifest["files"]:
            raise ArtifactError(
                f"{other.path}: expected a run on the store {runs[0].store.path}, found one on {other.store.path};"
                " train it on the same store"
            )


def _checked_ks(ks: Sequence[int] | None, store: Store) -> list[int]:
    if ks is None:
        ks = [min(k, store.num_items) for k in DEFAULT_KS]
    wrong = [k for k in ks if not 1 <= k <= store.num_items]
    if wrong or not ks:
        raise ConfigError(f"k: expected numbers from 1 to {store.num_items} (the catalogue's size), found {list(ks)}")
    return sorted(set(ks))


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"users · {task.speed or 0:,.0f}/s")


@contextmanager
def _progress(console: Console | None) -> Iterator[Progress]:
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console or Console(stderr=True)) as progress:
        yield progress


def _today() -> datetime:
    """Now, or when SOURCE_DATE_EPOCH says, for reports that are to be the same byte for byte."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        return datetime.now(UTC) if seconds is None else datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ConfigError(f"SOURCE_DATE_EPOCH: expected seconds since 1970, found {seconds!r}") from error
