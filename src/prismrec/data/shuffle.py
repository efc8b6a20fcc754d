"""Training events in another order: for data whose users gather sets rather than follow sequences.

Takes a store; gives a view of it in which the items of each user's training events are dealt anew over their moments.
"""

import dataclasses

import numpy as np

from prismrec.data.ranges import flat_ranges
from prismrec.data.store import Store


def shuffle_events(store: Store, rng: np.random.Generator, since: np.ndarray | None = None) -> Store:
    """Deal what each user did in training anew over the moments at which the user did something.

    Times stay as they are, and so do the events of validation and test. Items keep what is known of their events.
    What is before the event `since` of each user [U], if given, and what comes from there on are dealt apart.
    """
    starts, ends = store.split_bounds("train")
    place = flat_ranges(starts, ends)
    group = np.repeat(2 * np.arange(store.num_users), ends - starts)
    if since is not None:
        group += place >= np.repeat(since, ends - starts)
    dealt = np.arange(store.num_events)
    dealt[place] = place[np.lexsort((rng.random(len(place)), group))]
    columns = {name: getattr(store, name) for name in ("item", "dwell", "weight", "uniform", "context")}
    return dataclasses.replace(store, **{name: column[dealt] for name, column in columns.items() if column is not None})
