"""From recommendation lists to the metrics of one method.

Takes lists [U, K] of catalogue rows, the queries' targets and the catalogue's popularity and
categories; gives a `Method` without diagnostics.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from prismrec.data.schema import CATEGORY_FEATURES
from prismrec.data.store import Store
from prismrec.evaluate.baselines.popular import item_counts
from prismrec.evaluate.bootstrap import Estimate, bootstrap
from prismrec.evaluate.findings import Method
from prismrec.evaluate.item_sets import ItemSets
from prismrec.evaluate.metrics.diversity import category_diversity
from prismrec.evaluate.metrics.exposure import (
    concentration,
    coverage,
    exposure,
    exposure_by_decile,
    gini,
    mean_popularity,
)
from prismrec.evaluate.metrics.popularity import deciles, found_targets, recall_by_decile, tail_recall
from prismrec.evaluate.metrics.propensity import POWERS, ips_recall, snips_recall, target_weights, user_weights
from prismrec.evaluate.metrics.ranking import hit_rate, hits, mrr, ndcg, recall

RANKING: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "recall": recall,
    "hit_rate": hit_rate,
    "ndcg": ndcg,
    "mrr": mrr,
}


@dataclass(frozen=True)
class Catalogue:
    """What the metrics need to know of the items."""

    counts: np.ndarray
    """Training interactions, int64 [I]."""
    deciles: np.ndarray
    """Popularity decile 1..10, int64 [I]."""
    categories: np.ndarray | None
    """Key of the finest category of each catalogue row, int64 [I + 1]; None if the store has no category."""

    @classmethod
    def of(cls, store: Store) -> "Catalogue":
        """Count training interactions and look up categories."""
        counts = item_counts(store)
        names = [name for name in CATEGORY_FEATURES if name in store.schema.item_features]
        column = store.schema.item_features.index(names[0]) if names else None
        categories = None if column is None else np.asarray(store.item_features[:, column])
        return cls(counts, deciles(counts), categories)


def measure(
    name: str,
    kind: Literal["model", "baseline"],
    lists: np.ndarray,
    targets: ItemSets,
    catalogue: Catalogue,
    ks: Sequence[int],
    seed: int,
    uniform: ItemSets | None = None,
) -> Method:
    """Compute every metric of one method at every k; intervals are bootstrapped over users."""
    per_user: dict[str, np.ndarray] = {}
    of_users: dict[str, np.ndarray] = {}  # weights, where users do not count alike
    whole: dict[str, float] = {}
    hit = hits(lists, targets)
    weights = {model: target_weights(catalogue.counts, targets, power) for model, power in POWERS.items()}
    num_items = len(catalogue.counts)
    for k in ks:
        top = lists[:, :k]
        per_user |= {f"{metric}@{k}": compute(hit, targets.sizes, k) for metric, compute in RANKING.items()}
        per_user[f"tail_recall@{k}"] = tail_recall(top, targets, catalogue.deciles)
        found = found_targets(top, targets)
        for model, weight in weights.items():
            per_user[f"ips_recall_{model}@{k}"] = ips_recall(found, targets, weight)
            per_user[f"snips_recall_{model}@{k}"] = snips_recall(found, targets, weight)
            of_users[f"snips_recall_{model}@{k}"] = user_weights(targets, weight)
        if uniform is not None:
            uniform_hit = hits(lists, uniform)
            per_user[f"uniform_recall@{k}"] = recall(uniform_hit, uniform.sizes, k)
            per_user[f"uniform_ndcg@{k}"] = ndcg(uniform_hit, uniform.sizes, k)
        if catalogue.categories is not None:
            per_user[f"category_diversity@{k}"] = category_diversity(top, catalogue.categories)
        whole[f"coverage@{k}"] = coverage(top, num_items)
        whole[f"gini@{k}"] = gini(top, num_items)
        whole[f"mean_popularity@{k}"] = mean_popularity(top, catalogue.counts)
    return Method(
        name=name,
        kind=kind,
        metrics=estimates(per_user, seed, of_users),
        catalogue=whole,
        recall_by_decile={k: recall_by_decile(lists[:, :k], targets, catalogue.deciles) for k in ks},
        exposure_by_decile={k: exposure_by_decile(lists[:, :k], catalogue.deciles) for k in ks},
        concentration={k: concentration(exposure(lists[:, :k], num_items)) for k in ks},
    )


def estimates(per_user: dict[str, np.ndarray], seed: int, weights: dict[str, np.ndarray]) -> dict[str, Estimate]:
    """Mean and interval of each named column of user values, by `weights` of users where the column has some.

    Columns without any value are left out.
    """
    alike = np.ones(len(next(iter(per_user.values()))))
    of_users = np.column_stack([weights.get(name, alike) for name in per_user])
    found = bootstrap(np.column_stack(list(per_user.values())), seed, weights=of_users)
    return {name: estimate for name, estimate in zip(per_user, found, strict=True) if estimate is not None}


def recall_of(lists: np.ndarray, targets: ItemSets, k: int) -> np.ndarray:
    """Recall@k of each user, [U]."""
    return recall(hits(lists[:, :k], targets), targets.sizes, k)
