"""Whether a user's several vectors differ and are in use, and whether all routing heads are."""

import numpy as np

DEAD_SHARE = 0.1
"""A head with less than this part of an equal share is dead."""


def head_entropy(usage: np.ndarray) -> float:
    """Entropy of the heads' shares p over all users / log H: `-sum p log p / log H`, 1 if all are used alike.

    Args:
        usage: share of each head over users, [H], sums to 1.
    """
    if len(usage) < 2:
        return 1.0
    used = usage[usage > 0]
    return float(-(used * np.log(used)).sum() / np.log(len(usage)))


def dead_heads(usage: np.ndarray) -> list[int]:
    """Heads (from 0) whose share is below a tenth of 1 / H."""
    return [int(head) for head in np.flatnonzero(usage < DEAD_SHARE / len(usage))]


def interest_similarity(interests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and largest cosine between two different vectors of the same user, for the U' users who have two.

    Args:
        interests: unit vectors [U, V, D]; a zero vector is none.

    Returns:
        [U'] each.
    """
    first, second = np.triu_indices(interests.shape[1], k=1)
    cosine = np.einsum("upd,upd->up", interests[:, first], interests[:, second])
    present = np.any(interests != 0, axis=-1)
    pairs = present[:, first] & present[:, second]
    several = pairs.any(axis=1)
    cosine, pairs = cosine[several], pairs[several]
    return (cosine * pairs).sum(axis=1) / pairs.sum(axis=1), cosine.max(axis=1, where=pairs, initial=-1)


def vector_usage(finders: np.ndarray, num_interests: int) -> tuple[np.ndarray, float]:
    """Share of the items in all lists that each vector found, and the mean number of a user's vectors that found any.

    Args:
        finders: the vector, from 0, that found each item of each user's list, [U, k]; -1 where there is no item.
        num_interests: V.

    Returns:
        [V], sums to 1; the mean is over users with a list that is not empty. Without any list, zeros.
    """
    found = (finders[..., None] == np.arange(num_interests)).sum(1)  # [U, V]
    listed = found[found.any(axis=1)]
    return found.sum(axis=0) / max(found.sum(), 1), float((listed > 0).sum(axis=1).mean()) if len(listed) else 0.0


def mean_cosines(interests: np.ndarray) -> list[list[float | None]]:
    """Mean cosine between vectors v and w of a user, over the users who have both, [V, V]; None if nobody has.

    Args:
        interests: unit vectors [U, V, D]; a zero vector is none.
    """
    present = np.any(interests != 0, axis=-1).astype(np.float64)
    total = np.einsum("uvd,uwd->vw", interests, interests, dtype=np.float64)
    users = present.T @ present
    return [
        [None if not number else cosine / number for cosine, number in zip(*row, strict=True)]
        for row in zip(total.tolist(), users.tolist(), strict=True)
    ]
