"""What an evaluation found, as frozen data that becomes report.json."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from prismrec.evaluate.bootstrap import Estimate


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Diagnostics(_Part):
    """What a model does with its heads and vectors."""

    head_usage: list[float]
    """p(head), mean over users; sums to 1."""
    head_entropy: float
    """Entropy of `head_usage` / log H; 1 if all heads are used alike."""
    dead_heads: list[int]
    """Heads (from 0) with less than a tenth of an equal share."""
    cosine_mean: float | None
    """Cosine between two vectors of a user, mean over pairs, then users; None for one vector."""
    cosine_max: float | None
    """Largest cosine between two vectors of a user, mean over users."""
    found: list[float]
    """Share of the items in all lists of headline_k that each vector found: gave its best score; sums to 1."""
    vectors_used: float
    """Vectors that found an item of a user's list of headline_k, mean over users; V if all are in use for everybody."""
    recall_lost: list[Estimate]
    """Recall@headline_k lost when vector v is removed; empty for one vector."""
    auc: float | None = None
    """On the labelled pairs, if there are any."""


class Method(_Part):
    """One model or baseline."""

    name: str
    kind: Literal["model", "baseline"]
    metrics: dict[str, Estimate]
    """`recall@k`, `hit_rate@k`, `ndcg@k`, `mrr@k`, `tail_recall@k`, `category_diversity@k`: means over users."""
    catalogue: dict[str, float]
    """`coverage@k`, `gini@k`, `mean_popularity@k`."""
    recall_by_decile: dict[int, list[float | None]]
    """For each k, recall of targets in popularity decile 1 (head) to 10 (tail); None without such targets."""
    advantage: Estimate | None = None
    """Recall@headline_k of the first model minus this method's, over the same users."""
    diagnostics: Diagnostics | None = None


class Report(_Part):
    """An evaluation over the full catalogue."""

    settings: dict[str, Any]
    """Run, store, split, seed, date, protocol and configuration."""
    counts: dict[str, int]
    """Of the data set, and of the users and targets evaluated or left out."""
    ks: list[int]
    headline_k: int
    """The k of the summary, of the diagnostics and of `advantage`."""
    methods: list[Method]
    """The evaluated run first, then other runs, then baselines."""
