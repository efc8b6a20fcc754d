"""The world of `matthew.py`: real events to start from, who truly likes what, and what is chosen of what is shown.

Takes a table of real events; gives a sample of its users, their preferences, which no exposure and no model of the
benchmark has a part in, and the choices of users who are shown lists.
"""

from typing import NamedTuple

import numpy as np
import polars as pl
import torch

FEWEST = 5
"""Events of each user and each item: of fewer nobody can say what they like, or who likes them."""
RANK = 32
"""Of the truncated singular value decomposition that tastes come from."""
STEEPNESS = 4
"""Power of the preference: of items in the middle of a user's preferences, 1 in 16 is liked when it is looked at."""


class World(NamedTuple):
    """Users and items in the order of the store that is made of them."""

    events: pl.DataFrame
    """Real ones, of the sampled users: user_id, item_id, timestamp in seconds."""
    items: pl.DataFrame
    """Those that a sampled user has chosen."""
    preference: np.ndarray
    """float32 [U, I], from 0 to 1, 0.5 on average."""


def make_world(events: pl.DataFrame, items: pl.DataFrame, users: int, quality: float, seed: int) -> World:
    """Sample users, and work out what everybody likes from the events of all.

    Args:
        events: real ones: user_id, item_id, timestamp in seconds.
        items: with their features.
        users: how many to draw.
        quality: share of the preferences that is the same for everybody, the item's popularity; the rest is taste.
        seed: of the sample.
    """
    events = frequent(events.unique(["user_id", "item_id"], keep="first", maintain_order=True))
    everyone, everything = (events[name].unique().sort() for name in ("user_id", "item_id"))
    chosen = np.zeros((len(everyone), len(everything)), np.float32)
    chosen[places(events["user_id"], everyone), places(events["item_id"], everything)] = 1
    drawn = np.sort(np.random.default_rng(seed).choice(len(everyone), min(users, len(everyone)), replace=False))
    sampled = events.filter(pl.col("user_id").is_in(everyone.gather(drawn).implode()))
    kept = sampled["item_id"].unique().sort()
    columns = places(kept, everything)
    preference = preferences(tastes(chosen)[np.ix_(drawn, columns)], chosen[:, columns].sum(axis=0), quality)
    return World(sampled, kept.to_frame().join(items, on="item_id", how="left", maintain_order="left"), preference)


def frequent(events: pl.DataFrame) -> pl.DataFrame:
    """Without the users and items of fewer than FEWEST events, until none is left."""
    enough = pl.all_horizontal(pl.len().over(name) >= FEWEST for name in ("user_id", "item_id"))
    while len(kept := events.filter(enough)) < len(events):
        events = kept
    return events


def places(values: pl.Series, rising: pl.Series) -> np.ndarray:
    """Where each value is in a sorted series that has it, int64."""
    return np.searchsorted(rising.to_numpy(), values.to_numpy())


def tastes(chosen: np.ndarray, rank: int = RANK) -> np.ndarray:
    """How much more each user likes each item than activity and popularity say, in any unit, float32 [U, I].

    (x_ui - n_u n_i / N) / sqrt((n_u + mean n_u) (n_i + mean n_i)) in `rank` dimensions: correspondence analysis, and
    means added so that those of few events do not stand out (as in regularised spectral clustering, arXiv 1309.4111).

    Args:
        chosen: x, whether a user has chosen an item [U, I], N times in all.
        rank: of the decomposition, well below the number of items, or nothing is learned of one user from others.
    """
    active, popular = chosen.sum(axis=1, keepdims=True), chosen.sum(axis=0, keepdims=True)
    residual = chosen - active * popular / chosen.sum()
    scaled = torch.from_numpy(residual / np.sqrt((active + active.mean()) * (popular + popular.mean())))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        left, values, right = torch.svd_lowrank(scaled, min(rank, *chosen.shape), niter=8)
    return ((left * values) @ right.T).numpy()


def preferences(taste: np.ndarray, events: np.ndarray, quality: float) -> np.ndarray:
    """(1 - quality) * place of the user among all by taste for the item + quality * place of the item by events.

    float32 [U, I]. Places are from 0 to 1, the middle of the steps. So with quality 0 all items are liked as much by
    the users together, each by other users, and popularity says nothing; items of as many events keep their order.
    """
    personal, common = places_of(taste, axis=0), places_of(events, axis=0)
    return ((1 - quality) * personal + quality * common).astype(np.float32)


def places_of(values: np.ndarray, axis: int) -> np.ndarray:
    """(rank - 1/2) / N of each of N values along an axis, rank 1 for the smallest."""
    ranks = values.argsort(axis=axis, kind="stable").argsort(axis=axis)
    return (ranks + 0.5) / values.shape[axis]


def likings(shown: np.ndarray, preference: np.ndarray) -> np.ndarray:
    """Preferences for the items shown [U, k], catalogue rows of each user; 0 where the list has ended."""
    found = np.take_along_axis(preference, np.maximum(shown - 1, 0), axis=1)
    return np.where(shown > 0, found, 0)


def choose(liked: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Which of the items shown are chosen, bool [U, k]: those looked at and, independently, liked.

    p = liked^STEEPNESS / log2(rank + 1), the position-based model of clicks with the discount of DCG.

    Args:
        liked: preference for each item shown, best rank first [U, k].
        draws: uniform on [0, 1), [U, k].
    """
    looked_at = 1 / np.log2(np.arange(2, liked.shape[1] + 2))
    return draws < liked**STEEPNESS * looked_at
