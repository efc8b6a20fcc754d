"""Area under the ROC curve on labelled (user, item) pairs."""

import numpy as np

from prismrec.errors import DataError


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Chance that a positive pair scores above a negative one, ties counting half (Mann-Whitney U).

    `(sum of the positives' ranks - P (P + 1) / 2) / (P N)`, tied scores sharing their mean rank.

    Args:
        scores: [M].
        labels: bool or 0/1, [M].

    Raises:
        DataError: lengths differ, a score or label is not valid, or one of the two labels is missing.
    """
    if scores.shape != labels.shape or scores.ndim != 1:
        raise DataError(f"AUC: expected scores and labels [M], found {list(scores.shape)} and {list(labels.shape)}")
    if not np.isin(labels, (0, 1)).all() or np.isnan(scores).any():
        raise DataError("AUC: expected labels 0 or 1 and scores that are numbers")
    positive = labels.astype(bool)
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if not num_positive or not num_negative:
        raise DataError(
            f"AUC: expected pairs of both labels, found {num_positive} positive and {num_negative} negative"
        )
    _, place, size = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(size) - (size - 1) / 2
    rank_sum = mean_rank[place[positive]].sum()
    return float((rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def pair_scores(interests: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Score of each (user, item) pair: the largest inner product over the user's vectors, [M].

    Args:
        interests: vectors of each pair's user, [M, V, D].
        items: vector of each pair's item, [M, D].
    """
    return np.einsum("mvd,md->mv", interests, items).max(axis=1)
