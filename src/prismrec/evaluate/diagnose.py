"""What a model does with its heads and vectors: usage, similarity, and what each vector is worth.

Takes the candidates of all users and their targets; gives `Diagnostics` without AUC.
"""

import numpy as np

from prismrec.evaluate.bootstrap import Estimate, bootstrap
from prismrec.evaluate.candidates import Candidates
from prismrec.evaluate.findings import Diagnostics
from prismrec.evaluate.item_sets import ItemSets
from prismrec.evaluate.measure import recall_of
from prismrec.evaluate.metrics.interests import (
    dead_heads,
    head_entropy,
    interest_similarity,
    mean_cosines,
    vector_usage,
)


def diagnose(candidates: Candidates, targets: ItemSets, k: int, seed: int) -> Diagnostics:
    """Compute head usage, cosines between a user's vectors, what each vector finds, and recall@k lost without it."""
    found, vectors_used = vector_usage(candidates.finders()[:, :k], candidates.interests.shape[1])
    mean, largest = (values.mean() if len(values) else None for values in interest_similarity(candidates.interests))
    return Diagnostics(
        head_usage=candidates.head_usage.tolist(),
        head_entropy=head_entropy(candidates.head_usage),
        dead_heads=dead_heads(candidates.head_usage),
        cosine_mean=mean,
        cosine_max=largest,
        cosines=mean_cosines(candidates.interests),
        found=found.tolist(),
        vectors_used=vectors_used,
        recall_lost=_recall_lost(candidates, targets, k, seed) if candidates.interests.shape[1] > 1 else [],
    )


def _recall_lost(candidates: Candidates, targets: ItemSets, k: int, seed: int) -> list[Estimate]:
    """Recall@k of all vectors minus that of all but one, for each vector."""
    with_all = recall_of(candidates.merged(), targets, k)
    vectors = range(candidates.interests.shape[1])
    lost = [with_all - recall_of(candidates.merged_without(vector), targets, k) for vector in vectors]
    return [estimate for estimate in bootstrap(np.column_stack(lost), seed) if estimate is not None]
