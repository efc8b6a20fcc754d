"""One collection of item vectors in Milvus, in the terms of its client.

Takes a URL and a name; gives the collection's contents, and one kind of error that names the server
and never the password.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException

from prismrec.errors import SearchIndexError
from prismrec.index.loading import Block, check_name

EVERYTHING = "row > 0"
"""The condition that every row fulfils."""
MAX_RESULTS = 16_384
"""Milvus gives no more for one query."""

_BYTES_PER_MESSAGE = 16_000_000  # servers refuse messages over 64 MB
_OPTIONS = {"grpc.keepalive_permit_without_calls": 0}  # a server breaks connections that are idle and ask if it lives
_CONNECT_SECONDS = 10
_ANSWER_SECONDS = 60
_FINGERPRINT = "prismrec.fingerprint"


class Collection:
    """One collection of a server, in the terms of its client."""

    def __init__(self, url: str, name: str) -> None:
        """Connect; the collection need not exist."""
        check_name(name)
        address, server = _address(url)
        self.place = f"{server}, index {name!r}"
        self.replace = f"load under another name, or remove this one: MilvusClient(...).drop_collection({name!r})"
        self._name = name
        with self._errors("start it, or correct the index URL"):
            self._client = MilvusClient(address, timeout=_CONNECT_SECONDS, grpc_options=_OPTIONS)

    def record(self) -> dict[str, Any] | None:
        """What the collection holds; None if there is none."""
        with self._errors():
            if not self._client.has_collection(self._name, timeout=_ANSWER_SECONDS):
                return None
            found = self._client.describe_collection(self._name, timeout=_ANSWER_SECONDS)
        fields = {field["name"]: field for field in found["fields"]}
        return {
            "fingerprint": found["properties"].get(_FINGERPRINT),
            "dimension": fields.get("vector", {"params": {}})["params"].get("dim"),
            "categories": "categories" in fields,
        }

    def create(self, dimension: int, num_categories: int | None, fingerprint: str) -> None:
        """An empty collection with its indexes; `num_categories` is the most an item has, None if they are unknown."""
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("row", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
        if num_categories is not None:
            room = max(1, num_categories)  # Milvus knows no array of none
            schema.add_field("categories", DataType.ARRAY, element_type=DataType.INT64, max_capacity=room)
        indexes = MilvusClient.prepare_index_params()
        indexes.add_index("vector", index_type="HNSW", metric_type="IP", params={"M": 32, "efConstruction": 128})
        with self._errors():
            self._client.create_collection(
                self._name, schema=schema, index_params=indexes, properties={_FINGERPRINT: fingerprint}
            )

    def num_first_rows(self) -> int:
        """How many rows from the first on are there; others, left by a broken connection, are removed."""
        found = self.count(EVERYTHING)
        if self.count(f"row > {found}") == 0:
            return found
        with self._errors():
            self._client.delete(self._name, filter=EVERYTHING)
        return 0

    def insert(self, block: Block, with_categories: bool) -> None:
        items: list[dict[str, Any]] = [
            {"row": row, "vector": vector} for row, vector in zip(block.rows.tolist(), block.vectors, strict=True)
        ]
        if with_categories:
            for item, categories in zip(items, block.categories, strict=True):
                item["categories"] = categories
        size = _rows_per_message(block.vectors.shape[1])
        with self._errors():
            for start in range(0, len(items), size):
                self._client.insert(self._name, items[start : start + size])

    def finish(self) -> None:
        """Wait until every row is in the neighbour graph."""
        with self._errors():
            self._client.flush(self._name)
            while self._client.describe_index(self._name, "vector")["pending_index_rows"]:
                time.sleep(0.5)

    def make_searchable(self) -> None:
        with self._errors():
            self._client.load_collection(self._name)

    def count(self, condition: str) -> int:
        """Rows that fulfil the condition, all that were written before counting."""
        with self._errors():
            found = self._client.query(
                self._name,
                filter=condition,
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=_ANSWER_SECONDS,
            )
        return int(found[0]["count(*)"])

    def search(self, queries: np.ndarray, k: int, condition: str, width: int) -> Any:
        with self._errors():
            return self._client.search(
                self._name,
                data=list(np.asarray(queries, np.float32)),
                limit=k,
                filter="" if condition == EVERYTHING else condition,
                output_fields=["row"],
                search_params={"metric_type": "IP", "params": {"ef": max(width, k)}},
                timeout=_ANSWER_SECONDS,
            )

    def pages(self, condition: str, dimension: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows [N] and vectors [N, D] that fulfil the condition, page by page."""
        with self._errors():
            iterator = self._client.query_iterator(
                self._name,
                batch_size=_rows_per_message(dimension),
                filter=condition,
                output_fields=["row", "vector"],
                timeout=_ANSWER_SECONDS,
            )
            while page := iterator.next():
                yield np.array([item["row"] for item in page]), np.array([item["vector"] for item in page], np.float32)
            iterator.close()

    @contextmanager
    def _errors(self, advice: str = "see the server's log") -> Iterator[None]:
        """Errors of the client as ours."""
        try:
            yield
        except MilvusException as error:
            found = " ".join(error.message.split())
            raise SearchIndexError(f"{self.place}: expected an answer, found: {found}; {advice}") from error


def _address(url: str) -> tuple[str, str]:
    """What the client connects to, and its name in messages, without password."""
    if url.startswith("milvus:") and url.endswith(".db"):
        path = url.removeprefix("milvus:")
        return path, f"Milvus in {path}"
    if url.startswith(("milvus+http://", "milvus+https://")):
        address = url.removeprefix("milvus+")
        return address, f"Milvus at {urlsplit(address).hostname}"
    raise SearchIndexError(
        "index URL: expected milvus:FILE.db, milvus+http://HOST:PORT or milvus+https://USER:PASSWORD@HOST:PORT, "
        "found another form"
    )


def _rows_per_message(dimension: int) -> int:
    return max(1, min(MAX_RESULTS, _BYTES_PER_MESSAGE // (4 * dimension)))
