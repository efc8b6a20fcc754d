"""What was there to learn from, and how learning went: a store in a few numbers, and the curves of a training.

Takes a store and its catalogue, or a run's directory; gives parts of a `Report`.
"""

import json
import operator
from collections import defaultdict
from pathlib import Path

import numpy as np

from prismrec.data.store import Store
from prismrec.errors import ArtifactError
from prismrec.evaluate.findings import Curve, DataSummary
from prismrec.evaluate.measure import Catalogue
from prismrec.evaluate.metrics.exposure import concentration
from prismrec.evaluate.metrics.popularity import NUM_DECILES
from prismrec.model.run import METRICS

_POINTS = 200
"""Of a curve, at most: a report is read, not analysed."""
_NO_METRIC = {"kind", "step", "epoch"}


def summarise(store: Store, catalogue: Catalogue) -> DataSummary:
    """Count events, users, items and categories."""
    begins, ends = {}, {}
    for split in ("train", "valid", "test"):
        begins[split], ends[split] = store.split_bounds(split)
    events = {split: int((ends[split] - begins[split]).sum()) for split in begins}
    return DataSummary(
        first_day=_day(store.manifest["min_time"]),
        last_day=_day(store.manifest["max_time"]),
        train_events=events["train"],
        valid_events=events["valid"],
        test_events=events["test"],
        events_per_user=_quartiles(np.diff(store.offsets)),
        events_per_item=_quartiles(catalogue.counts),
        items_without_events=int((catalogue.counts == 0).sum()),
        items_by_decile=np.bincount(catalogue.deciles, minlength=NUM_DECILES + 1)[1:].tolist(),
        concentration=concentration(catalogue.counts),
        categories=None if catalogue.categories is None else len(set(catalogue.categories.tolist()) - {0}),
    )


def read_curves(run: Path, method: str) -> list[Curve]:
    """The metrics of a training, from `metrics.jsonl`; none if the run has no such file.

    Raises:
        ArtifactError: a line is damaged.
    """
    path = run / METRICS
    points: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    text = path.read_text(errors="replace") if path.exists() else ""
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            continue  # a training that still runs is writing it
        try:
            row = json.loads(line)
            kind, step = str(row["kind"]), operator.index(row["step"])
            for metric, value in row.items():
                if metric not in _NO_METRIC and np.isfinite(value):
                    points[kind, metric].append((step, value))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ArtifactError(
                f"{path}, line {number}: expected metrics of a step as JSON, could not read them ({error!r}); move the "
                "file away to evaluate without its curves"
            ) from error
    return [
        Curve(method=method, kind=kind, metric=metric, steps=steps, values=values)
        for (kind, metric), curve in points.items()
        for steps, values in [map(list, zip(*_thinned(curve), strict=True))]
    ]


def _thinned(curve: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Some of the points, evenly, the last one included."""
    every = -(-len(curve) // _POINTS)
    return curve[::-1][::every][::-1]


def _quartiles(counts: np.ndarray) -> list[int]:
    return [round(value) for value in np.quantile(counts, [0, 0.25, 0.5, 0.75, 1])]


def _day(seconds: int) -> str:
    return str(np.datetime64(seconds, "s").astype("datetime64[D]"))  # of any year, as timestamps in other units give
