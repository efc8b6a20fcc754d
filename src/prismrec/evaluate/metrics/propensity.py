"""Recall as if everything had been shown alike: inverse-propensity estimates from what people did.

What people did depends on what they were shown, and they were shown what is popular. If item i was noticed with
propensity p_i, each target i counts 1 / p_i, which on average makes up for those that are missing for want of exposure
(Schnabel et al., ICML 2016; for recommendation from clicks Yang et al., RecSys 2018). Propensities are not known; they
are modelled as a power of popularity, p_i ~ max(n_i, 1)^power with n_i the training interactions, as Yang et al. do:

- `sqrt`, power 1/2: what is popular is shown more, but also liked more;
- `linear`, power 1: popularity is nothing but exposure. The most that can be corrected.

Takes recommended lists [U, k], targets and item weights; gives one value per user, NaN without targets.
"""

import numpy as np

from prismrec.evaluate.item_sets import ItemSets
from prismrec.evaluate.metrics.popularity import found_targets

POWERS = {"sqrt": 0.5, "linear": 1.0}
LARGEST = 20.0
"""No target counts more than so many average ones: one lucky find of a rare item would decide the whole estimate."""


def target_weights(counts: np.ndarray, targets: ItemSets, power: float) -> np.ndarray:
    """Weights 1 / p of the targets, in the order of `targets.item`, cut off at `LARGEST` average ones; float64 [M].

    The scale of p is not known. Weights have a mean of one, so that targets of equal propensity give plain recall.

    Args:
        counts: training interactions of each item, [I].
        targets: items of each user.
        power: of popularity.
    """
    inverse = np.maximum(counts, 1.0)[targets.item - 1] ** -power
    cut = np.minimum(inverse / max(inverse.mean(), np.finfo(float).tiny), LARGEST) if len(inverse) else inverse
    return cut / max(cut.mean(), np.finfo(float).tiny) if len(cut) else cut


def ips_recall(recommended: np.ndarray, targets: ItemSets, weights: np.ndarray) -> np.ndarray:
    """Inverse-propensity estimate: `sum of the weights of the found targets / number of targets`, [U].

    Unbiased if the propensities are right up to scale; a user may have more than one.
    """
    return _ratio(recommended, targets, weights, targets.sizes.astype(np.float64))


def snips_recall(recommended: np.ndarray, targets: ItemSets, weights: np.ndarray) -> np.ndarray:
    """Self-normalised estimate: `sum of the weights of the found targets / sum of the weights of all`, [U].

    Between 0 and 1 and of far less variance, for a small bias (Swaminathan and Joachims, NIPS 2015). Normalised for
    each user: users count alike, as they do in recall.
    """
    return _ratio(recommended, targets, weights, np.bincount(targets.user, weights, targets.num_users))


def _ratio(recommended: np.ndarray, targets: ItemSets, weights: np.ndarray, whole: np.ndarray) -> np.ndarray:
    found = np.bincount(targets.user, weights * found_targets(recommended, targets), targets.num_users)
    return np.where(targets.sizes > 0, found / np.where(targets.sizes > 0, whole, 1), np.nan)
