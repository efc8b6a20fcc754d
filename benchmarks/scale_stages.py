"""What `scale.py` runs to time the stages of exporting and recommending: run, bundle, folder, users.

Prints their seconds as one line of JSON.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from prismrec.data.history import stored_histories
from prismrec.export.reader import Bundle, open_bundle
from prismrec.export.user_encoder import sample_histories
from prismrec.export.vectors import write_user_vectors
from prismrec.index.faiss_index import FaissIndex
from prismrec.model.encode import encode_items
from prismrec.model.run import load_run
from prismrec.serve.recommender import Recommender, write_recommendations

_USERS_PER_BATCH = 256


def main(run: str, bundle: str, out: str, users: str) -> None:
    """Time each stage once."""
    trained, opened, folder = load_run(Path(run)), open_bundle(Path(bundle)), Path(out)
    store = trained.store
    chosen = np.arange(min(int(users), store.num_users))
    items_s, vectors = timed(lambda: encode_items(trained.model, store))
    interests = opened.encoder.encode(sample_histories(store, trained.config), store.item_features).vectors
    index_s, index = timed(lambda: FaissIndex.build(vectors, interests))
    users_s, _ = timed(lambda: write_user_vectors(folder / "users.parquet", user_vectors(opened, chosen)))
    frames = Recommender(opened).stream(store.users[chosen].select("user_id"), k=100)
    recommend_s, written = timed(lambda: write_recommendations(frames, folder / "recommended.parquet"))
    print(
        json.dumps(
            {
                "item_vectors_s": items_s,
                "index_s": index_s,
                "index": index.description,
                "users": len(chosen),
                "user_vectors_s": users_s,
                "recommended": written.rows,
                "recommend_s": recommend_s,
            }
        )
    )


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and the result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def user_vectors(bundle: Bundle, users: np.ndarray) -> Iterator[tuple[pl.Series, np.ndarray]]:
    """Ids and interests of users, as `export --user-vectors` makes them."""
    store = bundle.store
    for start in range(0, len(users), _USERS_PER_BATCH):
        block = users[start : start + _USERS_PER_BATCH]
        histories = stored_histories(store, block, store.manifest["max_time"], bundle.config.history)
        yield store.user_ids[block], bundle.encoder.encode(histories, store.item_features).vectors


if __name__ == "__main__":
    main(*sys.argv[1:])
