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
    cosines: list[list[float | None]] = []
    """Cosine between each two vectors of a user, mean over users, [V, V]; None if nobody has both."""
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
    """Means over users: `recall@k`, `hit_rate@k`, `ndcg@k`, `mrr@k`, `tail_recall@k`, `category_diversity@k`; recall as
    if all had been shown alike, under two models of propensity (`metrics.propensity`): `ips_recall_sqrt@k`,
    `snips_recall_sqrt@k`, `ips_recall_linear@k`, `snips_recall_linear@k` (those of `snips` over weighted users); and on
    targets that came of exposure at random, where events say so: `uniform_recall@k`, `uniform_ndcg@k`."""
    catalogue: dict[str, float]
    """`coverage@k`, `gini@k`, `mean_popularity@k`."""
    recall_by_decile: dict[int, list[float | None]]
    """For each k, recall of targets in popularity decile 1 (head) to 10 (tail); None without such targets."""
    exposure_by_decile: dict[int, list[float]] = {}
    """For each k, share of the recommendations that goes to items of popularity decile 1 (head) to 10 (tail)."""
    concentration: dict[int, list[float]] = {}
    """For each k, share of the recommendations that the most shown ten-thousandth of the catalogue has, and larger
    parts of it (`metrics.exposure.SHARES`)."""
    advantage: Estimate | None = None
    """Recall@headline_k of the first model minus this method's, over the same users."""
    diagnostics: Diagnostics | None = None


class TradeOff(_Part):
    """Accuracy and coverage of a method at headline_k."""

    method: str
    popularity: float | None
    """Position of the first run's dial; None for a method as it is."""
    recall: Estimate
    ndcg: Estimate
    tail_recall: Estimate | None
    coverage: float
    gini: float


class Curve(_Part):
    """A metric in the course of a training."""

    method: str
    kind: str
    """`train` or `valid`."""
    metric: str
    steps: list[int]
    values: list[float]


class ItemName(_Part):
    """An item as people know it."""

    item_id: int | str
    title: str | None
    category: str | None


class Target(ItemName):
    """What a user went on to, and where it stood among the headline_k recommended; None if it was not there."""

    rank: int | None


class Recommended(ItemName):
    """A recommended item, the vector (from 0) that found it, and whether the user went on to it."""

    rank: int
    interest: int
    is_target: bool


class Example(_Part):
    """What the first run makes of one user."""

    user_id: int | str
    recall: float
    """At headline_k."""
    history: list[ItemName]
    """Newest first."""
    targets: list[Target]
    recommended: list[Recommended]


class DataSummary(_Part):
    """The data set, before anything was learned."""

    first_day: str
    last_day: str
    train_events: int
    valid_events: int
    test_events: int
    events_per_user: list[int]
    """Smallest, quartiles and largest."""
    events_per_item: list[int]
    """Likewise, of training events, items that have none included."""
    items_without_events: int
    """In training."""
    items_by_decile: list[int]
    """How many items hold each tenth of the training events, the most popular first."""
    concentration: list[float] = []
    """As of a method, of the training events in place of recommendations."""
    categories: int | None


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
    trade_offs: list[TradeOff] = []
    """The first run over its dial of popularity, unless that was not asked for, and every method as it is."""
    curves: list[Curve] = []
    """Of the trainings of the runs."""
    examples: list[Example] = []
    """Users of the first run with good lists, then with bad ones; none if that was asked for."""
    data: DataSummary | None = None
