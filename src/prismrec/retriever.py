"""One object for a notebook: fit on frames, recommend, explain, evaluate, save.

Takes events and items as pandas or Polars frames, or as files; gives frames of the kind that was given. All it does is
to call the verbs, in a directory that holds what they write:

    retriever/
    manifest.json    settings, and the checksums of the three manifests below
    store/  run/  bundle/

    from prismrec import Retriever

    retriever = Retriever({"model.num_interests": 2, "train.epochs": 5}).fit(events, items)
    retriever.recommend([17, 4], k=10)      # user_id, item_id, rank, score, interest
    retriever.explain([17])                 # which past events formed each interest
    retriever.similar(["sku-1"], k=10)      # target_item_id, item_id, rank, score
    retriever.evaluate("test")              # a report beside baselines
    retriever.save("shop")                  # Retriever.load("shop"), or: prismrec serve shop/bundle
"""

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import polars as pl
from rich.console import Console

from prismrec.artifact import MANIFEST, fitting_parts, listed_file, read_manifest, replacing_artifact, write_manifest
from prismrec.config import Config, PrepareConfig
from prismrec.data.append import append
from prismrec.data.prepare import prepare
from prismrec.data.schema import ITEM, TIME, USER
from prismrec.data.store import Split
from prismrec.data.tables import Source, Table, is_pandas, renamed
from prismrec.errors import ArtifactError
from prismrec.evaluate.evaluator import evaluate
from prismrec.evaluate.findings import Report
from prismrec.export.bundle import export
from prismrec.interchange import Frame, Ids, as_frame, as_given, column_names
from prismrec.model.run import tie_to_store
from prismrec.serve.item_vectors import ItemVectors
from prismrec.serve.reasons import nearest_events, recommended, with_titles
from prismrec.serve.recommender import Recommender
from prismrec.toml import override, parse_config, parse_prepare_config
from prismrec.train.trainer import train

KIND = "retriever"
STORE, RUN, BUNDLE = "store", "run", "bundle"
_DATETIME = "datetime"  # what RecTools calls the time of an event


@dataclass(frozen=True)
class _Fitted:
    """What `fit` left in a directory, opened."""

    path: Path
    recommender: Recommender
    items: ItemVectors
    pandas: bool
    """Whether answers are pandas frames where nothing else says so."""

    @classmethod
    def open(cls, path: Path) -> "_Fitted":
        manifest = read_manifest(path, KIND)
        with fitting_parts(path, KIND):
            pandas = manifest["frames"] == "pandas"
        places = {name: listed_file(path, manifest, f"{name}/{MANIFEST}").parent for name in (STORE, RUN, BUNDLE)}
        recommender = Recommender.open(places[BUNDLE])
        return cls(path, recommender, ItemVectors(recommender.bundle), pandas)


class Retriever:
    """Several vectors per user, from events to recommendations.

    Answers are pandas frames if the argument is of pandas, Polars frames if it is of Polars, and otherwise what `fit`
    was given. Ids keep their type.
    """

    def __init__(
        self,
        config: Config | Mapping[str, Any] | None = None,
        *,
        prepare: PrepareConfig | None = None,
        path: Path | str | None = None,
        console: Console | None = None,
    ) -> None:
        """Choose settings; nothing is written before `fit`.

        Args:
            config: settings of training and serving, whole or as `{"train.epochs": 3}`.
            prepare: how tables are read and split.
            path: the directory that `fit` writes; by default a temporary one, removed with the object.
            console: where progress is shown; standard error by default.

        Raises:
            ConfigError: a setting is not valid.
        """
        self.config = config if isinstance(config, Config) else override(Config(), config or {})
        self.prepare = prepare or PrepareConfig()
        self._path, self._console = path, console
        self._state: _Fitted | None = None

    @classmethod
    def load(cls, path: Path | str, *, console: Console | None = None) -> Self:
        """Open what `save` wrote, which stays as it is: a further `fit` writes elsewhere.

        Raises:
            ArtifactError: the directory is no saved retriever, or is damaged.
        """
        manifest = read_manifest(Path(path), KIND)
        with fitting_parts(Path(path), KIND):
            config = parse_config(manifest["config"], str(path))
            loaded = cls(config, prepare=parse_prepare_config(manifest["prepare"], str(path)), console=console)
        loaded._state = _Fitted.open(Path(path))
        return loaded

    def save(self, path: Path | str) -> Path:
        """Write everything to a directory, whole or not at all; an earlier retriever there is replaced.

        Raises:
            ArtifactError: something else is there, or this retriever is not fitted.
        """
        fitted = self._fitted
        with replacing_artifact(Path(path), KIND) as directory:
            shutil.copytree(fitted.path, directory, ignore=_links, dirs_exist_ok=True)
        return Path(path)

    def fit(self, events: Source, items: Source | None = None) -> Self:
        """Train on events; what an earlier `fit` learned is replaced, or stays if this one fails.

        Args:
            events: `user_id`, `item_id`, `timestamp` (in a frame also `datetime`), optional `dwell` and `weight`, and
                features of context; a frame, or files as for `prepare`.
            items: `item_id`, features, and `title` to show; by default the items of the events.

        Raises:
            DataError: a table cannot be read or breaks the schema.
            TrainingError: there is nothing to learn from, or the loss is not finite.
        """
        settings = self.prepare.model_copy(update={"columns": self._columns(events)})
        with self._next_state(is_pandas(events)) as directory:
            prepare(events, items, directory / STORE, settings, self._console)
            train(directory / STORE, directory / RUN, self.config, console=self._console)
        return self

    def update(self, events: Source, items: Source | None = None) -> Self:
        """Go on with newer events, and perhaps new items, from where training stands; see `append`.

        Raises:
            DataError: a table does not fit the store, or its events are not newer.
            TrainingError: none of them is a target of training yet.
            ArtifactError: this retriever is not fitted.
        """
        before = self._fitted
        with self._next_state(before.pandas) as directory:
            shutil.copytree(before.path / STORE, directory / STORE, ignore=_links)
            append(directory / STORE, events, items, columns=self._columns(events), console=self._console)
            train(directory / STORE, directory / RUN, continue_from=before.path / RUN, console=self._console)
        return self

    def recommend(
        self, users: Ids | None = None, k: int = 100, *, include_seen: bool = False, now: int | None = None
    ) -> Frame:
        """Recommend up to k items to each user, best first; see `Recommender.recommend`.

        Args:
            users: ids, or a frame of `user_id`; a frame of events of known or new users, which are added to what is
                known of them; every known user by default.
            k: items per user.
            include_seen: also recommend items of the user's history.
            now: time of the request, seconds; by default that of the newest event.

        Returns:
            `user_id, item_id, rank, score, interest`: rank from 1; number of the interest that found the item.

        Raises:
            DataError: a user is unknown and has no events.
        """
        found = self._fitted.recommender.recommend(self._asked(users, USER), k=k, include_seen=include_seen, now=now)
        return self._answer(found, users)

    def encode_users(self, users: Ids | None = None, *, now: int | None = None) -> Frame:
        """Vectors of users, as for `recommend`: `user_id, vectors` [V, D].

        A Polars column of arrays, whose `to_numpy()` is [N, V, D], or a pandas column of NumPy arrays [V, D]. D is one
        more than `model.embedding_dim` where popularity counts.
        """
        return self._answer(self._fitted.recommender.encode(self._asked(users, USER), now=now), users)

    def encode_items(self, items: Ids | None = None) -> Frame:
        """Vectors of items, whose inner product with a user's is the score: `item_id, vector` [D].

        Args:
            items: ids, or a frame of `item_id`; a frame of new items with features, by which alone they are encoded;
                the whole catalogue by default.

        Raises:
            DataError: an id is not in the catalogue, or new items do not fit it.
        """
        return self._answer(self._fitted.items.encode(self._asked(items, ITEM)), items)

    def similar(self, items: Ids | None = None, k: int = 10) -> Frame:
        """The k items of the largest cosine with each item: `target_item_id, item_id, rank, score`.

        Raises:
            DataError: an id is not in the catalogue.
        """
        return self._answer(self._fitted.items.similar(self._asked(items, ITEM), k=k), items)

    def explain(self, users: Ids | None = None, *, now: int | None = None) -> Frame:
        """Which past events formed each interest of users, as for `recommend`.

        Returns:
            `user_id, interest, item_id, timestamp, weight, closeness`, and `title` and `category` where the catalogue
            has them: each event's share in the interest, largest first, and the cosine of its item with the interest.
        """
        formed = self._fitted.recommender.interests(self._asked(users, USER), now=now)
        return self._answer(with_titles(formed, self._fitted.items.bundle.store), users)

    def reasons(self, recommendations: Frame, users: Ids | None = None, *, num_events: int = 3) -> Frame:
        """Of each recommendation, the events nearest to it among those that formed the interest which found it.

        Args:
            recommendations: `user_id, item_id, interest`, as `recommend` gave them.
            users: what `recommend` was given, if these were events; by default known users.
            num_events: events of a recommendation.

        Returns:
            `user_id, item_id, interest, event_item_id, timestamp, closeness`, with `event_title` and `event_category`
            where the catalogue has them: the cosine of the event's item with the recommended one, largest first.
        """
        pairs = recommended(as_frame(recommendations, ITEM, "recommendations"))
        asked = pairs.select(USER).unique(maintain_order=True) if users is None else self._asked(users, USER)
        formed = self._fitted.recommender.interests(asked)
        found = nearest_events(pairs, formed, self._fitted.items, num_events)
        return self._answer(with_titles(found, self._fitted.items.bundle.store), recommendations)

    def evaluate(
        self, split: Split = "test", ks: Sequence[int] | None = None, *, popularity: Sequence[float] = (), seed: int = 0
    ) -> Report:
        """Measure on a split over the full catalogue, beside baselines; see `prismrec.evaluate.evaluator`."""
        return evaluate(self._fitted.path / RUN, split, ks, popularity=popularity, seed=seed, console=self._console)

    def __repr__(self) -> str:
        if self._state is None:
            return "Retriever(not fitted)"
        store, model = self._state.items.bundle.store, self._state.items.bundle.config.model
        shape = f"{model.num_interests} vectors of {model.embedding_dim} dimensions"
        return f"Retriever({store.num_users:,} users, {store.num_items:,} items, {shape}, {self._state.path})"

    @property
    def _fitted(self) -> _Fitted:
        if self._state is None:
            raise ArtifactError("Retriever: expected a fitted one; call fit(events) first, or Retriever.load(path)")
        return self._state

    @cached_property
    def _directory(self) -> Path:
        """Where `fit` writes."""
        if self._path is not None:
            return Path(self._path)
        folder = tempfile.mkdtemp(prefix="prismrec-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder) / KIND

    @contextmanager
    def _next_state(self, pandas: bool) -> Iterator[Path]:
        """Yield a directory for a store and a run on it; without an error it becomes what this retriever answers by."""
        with replacing_artifact(self._directory, KIND) as directory:
            yield directory
            tie_to_store(directory / RUN, f"../{STORE}")
            export(directory / RUN, directory / BUNDLE, console=self._console)
            write_manifest(
                directory,
                KIND,
                files=[directory / name / MANIFEST for name in (STORE, RUN, BUNDLE)],
                config=self.config.model_dump(mode="json"),
                prepare=self.prepare.model_dump(mode="json"),
                frames="pandas" if pandas else "polars",
            )
        self._state = _Fitted.open(self._directory)

    def _columns(self, events: Any) -> dict[str, str]:
        """Our names of columns -> those of a table of events."""
        columns, names = self.prepare.columns, column_names(events)
        is_rectools = _DATETIME in names and TIME not in names and TIME not in columns
        return {**columns, TIME: _DATETIME} if is_rectools else columns

    def _asked(self, given: Ids | None, column: str) -> pl.DataFrame | None:
        """Users or items, by ids in a column or in a frame, with our names of columns."""
        if given is None:
            return None
        name = {USER: "users", ITEM: "items"}[column]
        frame = as_frame(given, column, name)
        return renamed(Table(name, frame.lazy()), self._columns(frame)).frame.collect()

    def _answer(self, frame: pl.DataFrame, asked: Any) -> Frame:
        says = is_pandas(asked) or isinstance(asked, pl.DataFrame | pl.LazyFrame | pl.Series)
        return as_given(frame, is_pandas(asked) if says else self._fitted.pandas)


def _links(folder: str, names: list[str]) -> list[str]:
    """What is not copied: it may be of another place, and nothing that PrismRec writes."""
    return [name for name in names if (Path(folder) / name).is_symlink()]
