"""What the service may be set to: limits, fallback, explanations."""

from typing import Literal

from pydantic import Field

from prismrec.config import Section


class ServeConfig(Section):
    """Settings of `prismrec serve`."""

    fallback: Literal["popular", "none"] = "popular"
    """For users of whom no event is known: the most popular items, or nothing; the answer says which."""
    events_per_interest: int = Field(5, ge=0)
    """Past events shown of each interest."""
    categories_per_interest: int = Field(3, ge=0)
    """Categories shown of each interest."""
    explorer: bool = True
    """The page at `/` that shows users, interests and items. It shows of every user what they did; where a key is set,
    it asks for the key."""
    max_k: int = Field(1000, ge=1)
    """Items per answer, at most."""
    max_events: int = Field(10_000, ge=1)
    """Events per query, and newest events kept of a user beside those of the bundle, at most."""
    max_batch: int = Field(100, ge=1)
    """Queries of a batched request, at most."""
    max_results: int = Field(10_000, ge=1)
    """Items asked for by all queries of a request together, at most; `diversity` looks at 4 k, which count."""
    max_listed: int = Field(10_000, ge=1)
    """Items or categories in a list of a query, such as `exclude_items`, at most."""
    max_body_bytes: int = Field(2**20, ge=1024)
    """Size of a request's body, at most; beyond it: 413."""
    max_body_seconds: float = Field(30.0, gt=0)
    """Until a request's address and headers have arrived, and then until its body has, at most; beyond it: 408."""
    max_concurrent: int = Field(256, ge=1)
    """Requests in progress, at most; beyond it: 503."""
    max_concurrent_per_client: int = Field(256, ge=1)
    """Requests in progress of one address, at most; beyond it: 429."""
    encoder_batch: int = Field(32, ge=1)
    """Queries encoded and searched together: waiting requests join the next batch until it has so many."""
    workers: int = Field(1, ge=1)
    """Threads that answer batched requests, and single ones too where index or events are on another server; otherwise
    single ones of up to 1000 items and events are answered between the others' turns, without a thread."""
    threads: int = Field(1, ge=1)
    """Of the encoder for each batch; OMP_NUM_THREADS says those of the search, by default 2."""
