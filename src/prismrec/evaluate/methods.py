"""Every method under one protocol: the same queries, lists of the same length, the same users resampled.

Takes the queries of a store; gives a `Method` for each model or baseline, and where each stands between accuracy and
coverage.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from rich.progress import Progress

from prismrec.data.store import Store
from prismrec.evaluate.bootstrap import bootstrap
from prismrec.evaluate.candidates import Candidates, Encoded, encode, rank, rank_over_dial
from prismrec.evaluate.diagnose import diagnose
from prismrec.evaluate.findings import Method, TradeOff
from prismrec.evaluate.measure import Catalogue, estimates, measure, recall_of
from prismrec.evaluate.metrics.exposure import coverage, gini
from prismrec.evaluate.metrics.popularity import tail_recall
from prismrec.evaluate.metrics.ranking import hits, ndcg, recall
from prismrec.evaluate.queries import Queries
from prismrec.evaluate.retrieval import Scorer, ranked_lists
from prismrec.model.run import Run

DIAL = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Positions of the dial of popularity at which the first run is looked at."""


@dataclass(frozen=True)
class FirstModel:
    """What the first model made of the users, for whatever looks at it closer."""

    encoded: Encoded
    candidates: Candidates


class Methods:
    """What all methods share: the queries, the lengths of the lists, and the first method's recall."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        queries: Queries,
        ks: list[int],
        headline_k: int,
        seed: int,
        progress: Progress,
    ) -> None:
        self._store, self._catalogue, self._queries = store, catalogue, queries
        self._ks, self._headline_k, self._seed, self._progress = ks, headline_k, seed, progress
        self._first_recall: np.ndarray | None = None

    def model(self, name: str, run: Run, auc: float | None) -> tuple[Method, FirstModel]:
        """Measure a model."""
        task = self._progress.add_task(name, total=self._queries.num_users)
        model = run.model.to(_device(run))
        encoded = encode(model, self._store, self._queries, run.config.history)
        candidates = rank(
            encoded, self._queries.seen, self._ks[-1], _device(run), lambda users: self._progress.advance(task, users)
        )
        method = self._method(name, "model", candidates.merged())
        diagnostics = diagnose(candidates, self._queries.targets, self._headline_k, self._seed)
        found = method.model_copy(update={"diagnostics": diagnostics.model_copy(update={"auc": auc})})
        return found, FirstModel(encoded, candidates)

    def baseline(self, name: str, scorer: Scorer) -> Method:
        """Measure a method that scores every item for every query."""
        task = self._progress.add_task(name, total=self._queries.num_users)
        items, _ = ranked_lists(
            scorer,
            self._queries.seen,
            self._store.num_items,
            self._ks[-1],
            advance=lambda users: self._progress.advance(task, users),
        )
        return self._method(name, "baseline", items[:, 0])

    def dial(self, name: str, run: Run, encoded: Encoded) -> list[TradeOff]:
        """A model over its dial of popularity, without encoding anything again."""
        task = self._progress.add_task("dial of popularity", total=self._queries.num_users)
        lists = rank_over_dial(
            encoded,
            self._catalogue.counts,
            [run.config.loss.temperature * position for position in DIAL],
            self._queries.seen,
            self._headline_k,
            _device(run),
            lambda users: self._progress.advance(task, users),
        )
        return [self._on_dial(name, position, lists[:, place]) for place, position in enumerate(DIAL)]

    def as_is(self, method: Method) -> TradeOff:
        """Where a method stands between accuracy and coverage."""
        k = self._headline_k
        return TradeOff(
            method=method.name,
            popularity=None,
            recall=method.metrics[f"recall@{k}"],
            ndcg=method.metrics[f"ndcg@{k}"],
            tail_recall=method.metrics.get(f"tail_recall@{k}"),
            coverage=method.catalogue[f"coverage@{k}"],
            gini=method.catalogue[f"gini@{k}"],
        )

    def _method(self, name: str, kind: Literal["model", "baseline"], lists: np.ndarray) -> Method:
        queries = self._queries
        method = measure(name, kind, lists, queries.targets, self._catalogue, self._ks, self._seed, queries.uniform)
        recall = recall_of(lists, queries.targets, self._headline_k)
        if self._first_recall is None:
            self._first_recall = recall
            return method
        return method.model_copy(update={"advantage": bootstrap((self._first_recall - recall)[:, None], self._seed)[0]})

    def _on_dial(self, name: str, position: float, lists: np.ndarray) -> TradeOff:
        k, targets, num_items = self._headline_k, self._queries.targets, len(self._catalogue.counts)
        hit = hits(lists, targets)
        per_user = {
            "recall": recall(hit, targets.sizes, k),
            "ndcg": ndcg(hit, targets.sizes, k),
            "tail_recall": tail_recall(lists, targets, self._catalogue.deciles),
        }
        found = {"tail_recall": None, **estimates(per_user, self._seed, {})}
        return TradeOff.model_validate(
            {
                "method": name,
                "popularity": position,
                "coverage": coverage(lists, num_items),
                "gini": gini(lists, num_items),
            }
            | found
        )


def _device(run: Run) -> torch.device:
    on_gpu = run.config.train.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")
