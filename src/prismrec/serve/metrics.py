"""What Prometheus may know of the service: where time goes, and what comes of requests.

Gives the metrics of one service, in a registry of its own.
"""

from contextlib import AbstractContextManager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_ITEMS = (0, 1, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """Counters and histograms of a service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "prismrec_requests", "Requests by path and status.", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "prismrec_request_seconds", "Time from a request to its answer.", ["path"], buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.in_progress = Gauge("prismrec_requests_in_progress", "Requests in progress.", registry=self.registry)
        self._stages = Histogram(
            "prismrec_stage_seconds", "Time of a stage, for a whole batch.", ["stage"], buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.batch_size = Histogram(
            "prismrec_encoder_batch_size", "Queries encoded together.", buckets=_SIZES, registry=self.registry
        )
        self.candidates = Histogram(
            "prismrec_candidates", "Items of an answer.", buckets=_ITEMS, registry=self.registry
        )
        self.empty = Counter("prismrec_empty_answers", "Answers without any item.", registry=self.registry)
        self.fallbacks = Counter(
            "prismrec_fallback_answers", "Answers to users of whom nothing is known.", registry=self.registry
        )
        self.events = Counter("prismrec_events_appended", "Events remembered.", registry=self.registry)
        self.swaps = Counter("prismrec_swaps", "Changes to another bundle.", registry=self.registry)
        self.info = Gauge("prismrec_bundle", "1 for the bundle that is served.", ["model"], registry=self.registry)

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """Time a stage."""
        return self._stages.labels(name).time()

    def text(self) -> bytes:
        """In the format that Prometheus scrapes."""
        return generate_latest(self.registry)
