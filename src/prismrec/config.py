"""Every setting of a store and of a training run: frozen and validated; `toml.py` reads and writes them.

Unknown keys and values out of range are errors that name the key. A store and a run each keep their
full configuration, so they can be repeated.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_TOO_LARGE = 2**40


def _whole_numbers(value: Any) -> list[int]:
    """Those of a setting, however they are nested."""
    if isinstance(value, Mapping | tuple):
        inner = value.values() if isinstance(value, Mapping) else value
        return [number for each in inner for number in _whole_numbers(each)]
    return [value] if isinstance(value, int) else []


class Section(BaseModel):
    """Settings that are read once, checked whole and never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _fits(cls, value: Any) -> Any:
        """Products of a few settings must be integers of 64 bits."""
        if any(abs(number) >= _TOO_LARGE for number in _whole_numbers(value)):
            raise ValueError("expected whole numbers below 2^40, found larger ones")
        return value


class PrepareConfig(Section):
    """How `prismrec prepare` reads tables of events and items."""

    columns: dict[str, str] = {}
    """Our name of a column -> its name in the tables given; `user`, `item` and `time` are short for
    `user_id`, `item_id` and `timestamp`. Columns not named here keep their names."""
    split: Literal["leave_last_two_out", "global_time"] = "leave_last_two_out"
    """Each user's last event is for testing and the one before for validation, if the user has at least three;
    or everything from one moment on is for validation and from a later one on for testing."""
    valid_from: int | None = Field(None, ge=0)
    """Of `global_time`, seconds: first moment of validation; found from the shares if not given."""
    test_from: int | None = Field(None, ge=0)
    """Of `global_time`, seconds: first moment of testing; given together with `valid_from`."""
    valid_share: float = Field(0.1, gt=0, lt=1)
    """Of `global_time` without moments given: share of all events that is for validation, after those of training."""
    test_share: float = Field(0.1, gt=0, lt=1)
    """Likewise for testing: the newest events of all users together."""
    repeats: Literal["keep", "drop"] = "keep"
    """`drop` keeps only the first event of each user with each item."""
    min_user_events: int = Field(1, ge=1)
    """Users with fewer events than this are left out."""
    context_features: tuple[str, ...] | None = None
    """Further columns of the events to use; all of them by default."""
    display_columns: tuple[str, ...] = ("title", "name", "description")
    """Columns of the items that are kept to be shown and are not features."""

    @field_validator("columns")
    @classmethod
    def _long_names(cls, columns: dict[str, str]) -> dict[str, str]:
        short = {"user": "user_id", "item": "item_id", "time": "timestamp"}
        return {short.get(name, name): given for name, given in columns.items()}

    @model_validator(mode="after")
    def _moments_fit(self) -> Self:
        if (self.valid_from is None) != (self.test_from is None):
            raise ValueError("valid_from and test_from must be given together")
        if self.valid_from is not None and self.test_from is not None:
            if self.split != "global_time":
                raise ValueError("valid_from and test_from need split='global_time'")
            if self.valid_from >= self.test_from:
                raise ValueError(f"valid_from={self.valid_from} must be before test_from={self.test_from}")
        if self.valid_share + self.test_share >= 1:
            raise ValueError(f"valid_share={self.valid_share} + test_share={self.test_share} must be below 1")
        return self


class HistoryConfig(Section):
    """Which past events a user encoder sees."""

    max_length: int = Field(200, ge=1)
    """T: newest events kept per user; batches are as long as the longest of them, so short histories cost no more."""
    recent_events: int = Field(10, ge=0)
    """Newest events that count as recent; their categories form the user's context query."""
    before_target_time: bool = False
    """Only events strictly older than the target (baskets); otherwise all events sorted before it."""
    shuffle: bool = False
    """Train on each user's events in another order in every epoch: for sets rather than sequences, such as the products
    of a household, where what came later says as much of an item as what came before."""


class HashingConfig(Section):
    """Embedding tables: each id is hashed by several prime moduli into tables that are concatenated."""

    num_hashes: int = Field(4, ge=1)
    """Tables per feature."""
    rows_per_id: float = Field(1.0, gt=0)
    """Rows of each table per distinct id, before rounding up to a prime."""
    max_rows: int = Field(1_000_000, ge=2)
    """Largest number of rows of a table."""
    primes: dict[str, tuple[int, ...]] = {}
    """Explicit moduli per feature name; features not named here are sized from the store."""


class EncoderConfig(Section):
    """The sequence model under the interest heads."""

    kind: Literal["none", "transformer", "hstu"] = "transformer"
    """`none` pools the clicks as they are, as Multi-CLRec does, one example a pass. The others are causal and give an
    example at every position of a history in one pass: pre-norm attention with gated feed-forward layers, or HSTU's
    pointwise attention, both with a bias by relative position and elapsed time."""
    num_layers: int = Field(2, ge=1)
    """Blocks."""
    num_heads: int = Field(2, ge=1)
    """Attention heads of a block; divides embedding_dim."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of the inputs and of each block's outputs that training leaves out."""


class ModelConfig(Section):
    """The multi-interest model (Multi-CLRec, arXiv 2005.12964)."""

    embedding_dim: int = Field(64, ge=4)
    """D: width of item and user vectors."""
    num_heads: int = Field(4, ge=1)
    """H: prototypes that clicks are routed to."""
    num_interests: int = Field(4, ge=1)
    """V: vectors per user; divides num_heads."""
    encoder: EncoderConfig = EncoderConfig()
    hashing: HashingConfig = HashingConfig()
    elapsed_boundaries: tuple[int, ...] = (60, 300, 3600, 86400, 604800)
    """Seconds between a click and now, bucketised."""
    dwell_boundaries: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256, 512)
    """Seconds of dwell, bucketised."""
    user_id: bool = False
    """Add an embedding of the user id to the context query (does not generalise to new users)."""
    attention: Literal["context", "query"] = "context"
    """p(item) from the click's context, or from its similarity to the recent clicks."""
    position_bias: bool = False
    """Let p(item) also depend on the click's place in the history; only with attention='context'."""
    routing: Literal["soft", "hard", "straight_through"] = "soft"
    """p(head|item): softmax, one-hot without gradient, or one-hot with the softmax's gradient."""
    head_prior: bool = True
    """Give each head a learned vector of its own, so that an empty head is not filled by others."""
    equalize_heads: bool = False
    """Normalise each head's weights to one, so that small interests count as much as large ones."""
    adaptive_interests: bool = False
    """Give short histories fewer vectors, floor(log2(events)) + 1 of those that most of the history is routed to (after
    MIND, arXiv 1904.08030); only with an encoder."""
    per_path_dense: bool = False
    """One dense layer per head instead of one shared by all."""
    top_vectors: int | None = Field(None, ge=1)
    """Serve only this many of the V vectors, those that best match some click of the history."""
    item_norm: Literal["unit", "free"] = "unit"
    """Score items by cosine, or by inner product with item vectors of any length: where there are few users, an item
    that tells little of who likes it stays short, and only those that do move far from their popularity."""
    layer_norm: Literal["none", "standard", "unit"] = "none"
    """Layer normalisation of history item embeddings; `unit` scales the result to norm one."""
    temperature: float = Field(0.07, gt=0)
    """Divisor of cosines in routing and in attention='query'."""

    @model_validator(mode="after")
    def _interests_divide_heads(self) -> Self:
        if self.num_heads % self.num_interests:
            raise ValueError(f"num_heads={self.num_heads} must be a multiple of num_interests={self.num_interests}")
        if self.embedding_dim % self.encoder.num_heads:
            raise ValueError(
                f"embedding_dim={self.embedding_dim} must be a multiple of encoder.num_heads={self.encoder.num_heads}"
            )
        if self.adaptive_interests and self.encoder.kind == "none":
            raise ValueError("adaptive_interests needs an encoder: set encoder.kind")
        if self.top_vectors is not None and self.top_vectors > self.num_interests:
            raise ValueError(f"top_vectors={self.top_vectors} must be at most num_interests={self.num_interests}")
        return self


class LossConfig(Section):
    """The contrastive loss and its queue of negatives."""

    reading: Literal["expectation", "log_sum_exp", "maximum"] = "log_sum_exp"
    """What of p(vector, item) is maximised: its expected logarithm under the routing of the item's category (the
    reference), the logarithm of its sum over vectors (a mixture's likelihood), or that of the best vector (as served).
    """
    joint: bool = True
    """Softmax over (vector, item) pairs; otherwise over items for each vector, only for the expectation."""
    temperature: float = Field(0.07, gt=0)
    """Divisor of cosines in the contrastive and the semantic loss."""
    margin: float = Field(0.0, ge=0)
    """Subtracted from the positive's cosine in training."""
    queue_size: int = Field(0, ge=0)
    """Q: recent positives kept as negatives, those of the batch included."""
    hard_queue_size: int = Field(0, ge=0)
    """The oldest entries of the queue that count only where their category routes like the positive's."""
    in_batch_negatives: int = Field(512, ge=0)
    """Negatives drawn from the batch's positives, at most all of them."""
    uniform_negatives: int = Field(512, ge=0)
    """Negatives drawn from the whole catalogue, each item as likely."""
    full_softmax_items: int = Field(0, ge=0)
    """Catalogues of at most this size are the negatives as a whole, in place of all the samples."""
    negatives_scope: Literal["global", "local"] = "global"
    """Where several processes train together: with `global` they share one queue and one draw of negatives, from the
    targets of all, as a single process would have; with `local` each keeps a queue of its own targets and draws from
    its own part of the batch, which saves an exchange of ids and gives each example other negatives, of its part."""
    deduplicate: bool = True
    """Count an item once, however often it was drawn; the hard part of the queue is left as it is."""
    log_q: float = Field(1.0, ge=0, le=1)
    """Dial from debiasing to likelihood. 0 leaves popular items as heavy among the negatives as the queue makes them:
    inverse-propensity weighting, which `deduplicate` levels off for items that come up more than once. 1 divides each
    by the weight it is expected to have under the mixture of sources: the full softmax."""
    balance_weight: float = Field(0.0, ge=0)
    """Of the auxiliary loss that keeps every head in use."""
    sharpness_weight: float = Field(0.0, ge=0)
    """Of the auxiliary loss that sends each item to one head."""
    semantic_weight: float = Field(0.0, ge=0)
    """Of the auxiliary loss that makes heads distinct."""
    usage_weight: float = Field(0.1, ge=0)
    """Of the auxiliary loss that keeps every vector in use: each is to be the best for its share of the positives.
    Without it one vector often ends up finding nearly everything."""
    diversity_weight: float = Field(0.1, ge=0)
    """Of the auxiliary loss that keeps a user's vectors apart: their mean squared cosine. Without it vectors that are
    all in use may be nearly the same."""

    @model_validator(mode="after")
    def _hard_part_fits(self) -> Self:
        if self.hard_queue_size and self.hard_queue_size >= self.queue_size:
            raise ValueError(f"hard_queue_size={self.hard_queue_size} must be below queue_size={self.queue_size}")
        if not self.joint and self.reading != "expectation":
            raise ValueError(f"reading={self.reading!r} needs joint=true")
        if not self.queue_size + self.in_batch_negatives + self.uniform_negatives + self.full_softmax_items:
            raise ValueError(
                "no negatives: set queue_size, in_batch_negatives, uniform_negatives or full_softmax_items"
            )
        return self


class TrainConfig(Section):
    """How the model is fitted."""

    batch_size: int = Field(1024, ge=1)
    """Targets per step; with history.before_target_time on average, since baskets stay together."""
    epochs: int = Field(10, ge=1)
    """Passes over the training events, at most."""
    max_steps: int | None = Field(None, ge=1)
    """Steps, at most; the schedule ends there."""
    learning_rate: float = Field(2e-3, gt=0)
    """Of the dense weights (AdamW)."""
    table_learning_rate: float = Field(0.05, gt=0)
    """Of the embedding tables (row-wise Adagrad, or sparse Adam)."""
    table_optimizer: Literal["rowwise_adagrad", "sparse_adam"] = "rowwise_adagrad"
    """Both touch only the rows of a batch; row-wise Adagrad keeps one number per row."""
    sharding: Literal["planner", "row_wise", "table_wise"] = "planner"
    """How several processes divide the embedding tables: as TorchRec's planner finds best, or all in one way."""
    weight_decay: float = Field(0.0, ge=0)
    """Of the dense weights, decoupled (AdamW)."""
    clip_norm: float = Field(1.0, ge=0)
    """Largest gradient norm of the dense weights; 0 is off."""
    warmup_steps: int = Field(100, ge=0)
    """Steps over which the learning rates rise."""
    decay: Literal["none", "linear", "cosine"] = "cosine"
    """How the learning rates fall to zero after the warm-up."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """In which the encoders multiply. `auto` is bfloat16 for an `embedding_dim` of 256 and more on hardware that has
    it, and float32 otherwise, which is as fast or faster (docs/speed.md)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU where there is one."""
    validate_every: int | None = Field(None, ge=1)
    """Steps between validations; an epoch by default."""
    validate_users: int = Field(10_000, ge=1)
    """Users of a validation, at most; always the same."""
    validate_k: int = Field(50, ge=1)
    """Validation is recall at this k."""
    patience: int = Field(3, ge=1)
    """Validations without a better recall before training stops."""
    checkpoint_every: int = Field(1000, ge=1)
    """Steps between checkpoints."""
    log_every: int = Field(50, ge=1)
    """Steps between lines of metrics.jsonl."""
    new_since: int | None = Field(None, ge=0)
    """Learn only from events that have become training events since the store had so many parts; set by
    `--continue-from`."""
    deterministic: bool = False
    """The same files, byte for byte, each time on the same machine: on a GPU by algorithms that always add in the same
    order, which are slower, and without TensorBoard, whose records carry the time. On a CPU the rest is so anyway."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Of weights, of the order of examples, and of what is drawn in training."""


class Config(Section):
    """All settings of `prismrec train`."""

    history: HistoryConfig = HistoryConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    exclude_seen: bool = True
    """Recommend new items only. Items of the user's history are left out of validation and evaluation, and of training:
    as targets, and as negatives, since telling them from the target would push vectors away from what the user likes.
    """
    popularity: float = Field(0.0, ge=0, le=1)
    """Dial of validation, evaluation and serving, not of training: adds temperature * popularity * log p(item) to an
    item's score. 0 recommends without popularity bias; 1 gives back what a queue with log_q=0 and deduplicate=false
    took away, so that scores rank by likelihood (more than that with deduplicate, for the most popular items). Each
    point between trades coverage for recall."""
