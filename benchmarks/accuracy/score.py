"""The one evaluator: from exported lists to the metrics of a method.

Takes files of lists, of whichever method, and the store; gives every metric with a 95 % interval
bootstrapped over users where it is a mean over users. The metrics are PrismRec's own
(`prismrec.evaluate.measure`): hit rate, NDCG, recall, MRR, tail recall (over targets in the less
popular half of the training events), coverage, Gini of exposure and mean popularity, at each k.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import KS
from lists import read_lists

from prismrec.data.store import Store
from prismrec.evaluate.measure import Catalogue, measure
from prismrec.evaluate.queries import Queries

Metrics = dict[str, dict[str, float]]
"""Name -> `value`, and `low` and `high` if it is a mean over users."""
BOOTSTRAP_SEED = 0
"""The same for all methods, so that their intervals rest on the same resamples."""


def score(path: Path, store: Store, queries: Queries, ks: Sequence[int] = KS) -> Metrics:
    """Judge the lists of a file.

    Raises:
        DataError: the file is missing, or its lists do not answer the queries.
    """
    lists = read_lists(path, store, queries, max(ks))
    method = measure(path.stem, "model", lists, queries.targets, Catalogue.of(store), ks, BOOTSTRAP_SEED)
    means: Mapping[str, Any] = method.metrics
    return {
        **{name: {"value": mean.value, "low": mean.low, "high": mean.high} for name, mean in means.items()},
        **{name: {"value": value} for name, value in method.catalogue.items()},
    }
