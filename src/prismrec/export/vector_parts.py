"""Vectors of more items and users than fit one file: ranges of a bundle's items and users, a file of each.

Takes a bundle; gives Parquet files in the folders `items` and `users`, with the columns that `vectors` describes, here
or in an object store. A killed call goes on with the parts that are left when it is made again.
"""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from prismrec.data.parquet import scan_parquet
from prismrec.data.schema import ITEM
from prismrec.engine import Engine
from prismrec.export.reader import CONFIG, ITEM_VECTORS, STORE, USER_ENCODER, open_once
from prismrec.export.user_encoder import stored_vectors
from prismrec.export.vectors import item_table, user_table
from prismrec.locations import fingerprint, joined
from prismrec.parts import Part, Tables, write_parts

_USERS_PER_PART, _ITEMS_PER_PART = 51_200, 500_000


def write_vector_parts(bundle: Path, out: str, engine: Engine, console: Console) -> None:
    """Write `items/part-00000.parquet` and so on, and `users/part-00000.parquet` and so on.

    Raises:
        ArtifactError: the bundle is damaged, or there is something else in the folders.
    """
    opened = open_once(bundle)
    checksums = {name: described["sha256"] for name, described in opened.manifest["files"].items()}

    def open_items() -> Callable[[range], Tables]:
        vectors = scan_parquet(open_once(bundle).path / ITEM_VECTORS)

        def items(rows: range) -> Tables:
            frame = vectors.slice(rows.start, len(rows)).collect()
            yield item_table(frame[ITEM], frame["vector"].to_numpy()), 0

        return items

    def open_users() -> Callable[[range], Tables]:
        serving = open_once(bundle)

        def users(rows: range) -> Tables:
            for ids, vectors in stored_vectors(serving.store, serving.encoder, serving.config.history, rows):
                yield user_table(ids, vectors), len(ids)

        return users

    of_items = _parts(opened.store.num_items, _ITEMS_PER_PART, checksums[ITEM_VECTORS])
    write_parts(joined(out, "items"), of_items, open_items, engine, "item vectors", console)
    made_of = [checksums[name] for name in (USER_ENCODER, CONFIG, f"{STORE}/manifest.json")]
    of_users = _parts(opened.store.num_users, _USERS_PER_PART, made_of)
    write_parts(joined(out, "users"), of_users, open_users, engine, "user vectors", console)


def _parts(number: int, each: int, made_of: object) -> list[Part]:
    ranges = [range(start, min(start + each, number)) for start in range(0, number, each)]
    return [Part(rows, fingerprint(rows, made_of)) for rows in ranges]
