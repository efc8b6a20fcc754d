"""Recall as if everything had been shown alike: inverse-propensity estimates from what people did.

What people did depends on what they were shown, and they were shown what is popular. If item i was noticed with
propensity p_i, each target i counts 1 / p_i, which on average makes up for those that are missing for want of exposure
(Schnabel et al., ICML 2016; for recommendation from clicks Yang et al., RecSys 2018). Propensities are not known; they
are modelled as a power of popularity, p_i ~ max(n_i, 1)^power with n_i the training interactions, as Yang et al. do:

- `sqrt`, power 1/2: what is popular is shown more, but also liked more;
- `linear`, power 1: popularity is nothing but exposure. The most that can be corrected.

Takes which targets are in the lists, and item weights; gives one value per user, NaN without targets.
"""

import numpy as np

from prismrec.evaluate.item_sets import ItemSets

POWERS = {"sqrt": 0.5, "linear": 1.0}
LARGEST = 20.0
"""No target counts more than so many average ones: one lucky find of a rare item would decide the whole estimate."""


def target_weights(counts: np.ndarray, targets: ItemSets, power: float) -> np.ndarray:
    """Weights 1 / p of the targets, in the order of `targets.item`, none above `LARGEST` average ones; float64 [M].

    The scale of p is not known. Weights have a mean of one, so that targets of equal propensity give plain recall.

    Args:
        counts: training interactions of each item, [I].
        targets: items of each user.
        power: of popularity.
    """
    inverse = np.maximum(counts, 1.0)[targets.item - 1] ** -power
    if not len(inverse):
        return inverse
    cut = np.minimum(inverse, _largest(inverse))
    return cut / cut.mean()


def ips_recall(found: np.ndarray, targets: ItemSets, weights: np.ndarray) -> np.ndarray:
    """Inverse-propensity estimate: `sum of the weights of the found targets / number of targets`, [U].

    Unbiased if the propensities are right up to scale; a user may have more than one.

    Args:
        found: whether each target is in its user's list, bool [M].
        targets: items of each user.
        weights: of the targets, [M].
    """
    return _means(found * weights, targets)


def snips_recall(found: np.ndarray, targets: ItemSets, weights: np.ndarray) -> np.ndarray:
    """Self-normalised estimate: `sum of the weights of the found targets / sum of the weights of all`, [U].

    Between 0 and 1 and of less variance, for a small bias (Swaminathan and Joachims, NIPS 2015). Of one target it is
    plain recall, whatever the target, so users are not to count alike: their mean is to be weighted by
    `user_weights`, which makes it the ratio of the sums over all users.
    """
    return ips_recall(found, targets, weights) / user_weights(targets, weights)


def user_weights(targets: ItemSets, weights: np.ndarray) -> np.ndarray:
    """Mean weight of each user's targets: how many users like this one were not seen for want of exposure, [U]."""
    return _means(weights, targets)


def _largest(inverse: np.ndarray) -> float:
    """The c for which cutting at c makes c equal to `LARGEST` times the mean of what is left; no less than all if none.

    With the j largest of N cut and the others adding up to r, `c = LARGEST (j c + r) / N`. The wanted j is the first
    whose c none of the others exceeds.
    """
    falling = np.sort(inverse)[::-1]
    cut = np.arange(-(-len(falling) // int(LARGEST)))  # of more, c would not be positive
    rest = falling[::-1].cumsum()[::-1][cut]
    level = LARGEST * rest / (len(falling) - LARGEST * cut)
    return float(level[np.argmax(falling[cut] <= level)])


def _means(values: np.ndarray, targets: ItemSets) -> np.ndarray:
    sums = np.bincount(targets.user, values, targets.num_users)
    return np.where(targets.sizes > 0, sums / np.maximum(targets.sizes, 1), np.nan)
