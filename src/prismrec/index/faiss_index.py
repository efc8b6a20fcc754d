"""Search with Faiss: exact for small catalogues, approximate at a measured recall for large ones.

Takes item vectors and the user vectors that will be searched with; gives an index that is saved to
one file, and a description of it (kind, parameters, measured recall) for the bundle's manifest.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from prismrec.artifact import replacing_file
from prismrec.errors import SearchIndexError
from prismrec.index.allowed import allowed_items, check_categories
from prismrec.index.base import NO_ROW, Filter, best_first, check_queries, check_rows
from prismrec.index.exact import ExactIndex

EXACT_BELOW = 50_000
MIN_RECALL = 0.98
RECALL_AT = 100
_MAX_MEASURED = 2000
_HNSW_NEIGHBOURS = 32
_HNSW_CONSTRUCTION = 128
_HNSW_SEARCHES = (64, 128, 256, 512, 1024, 2048)
_POINTS_PER_CELL = 256
_TIE = 1e-6  # Faiss and NumPy add in another order: scores this close count as equal


class FaissIndex:
    """A flat, IVF or HNSW index of Faiss with the search parameters chosen when it was built."""

    def __init__(self, index: Any, description: dict[str, Any], categories: np.ndarray | None = None) -> None:
        """Use `index` as `description` says; see `build` and `load`."""
        found = {"num_vectors": index.ntotal, "dimension": index.d}
        expected = {name: description[name] for name in found}
        if found != expected:
            raise SearchIndexError(f"index: expected {expected}, found {found}; export the bundle again")
        check_categories(categories, index.ntotal)
        self._index = index
        self._categories = categories
        self.description = description
        if description["kind"] == "ivf":
            index.make_direct_map()  # from a row to its cell, for `vectors`

    @classmethod
    def build(
        cls,
        vectors: np.ndarray,
        queries: np.ndarray,
        seed: int = 0,
        *,
        exact_below: int = EXACT_BELOW,
        min_recall: float = MIN_RECALL,
    ) -> "FaissIndex":
        """Index `vectors`; from `exact_below` of them, take the fastest engine that reaches the recall.

        Recall@100 is measured against exact search with a sample of `queries`. Each engine's search
        is widened until its recall, less two standard errors, reaches `min_recall`; of those that do,
        the one of lowest latency is kept.

        Args:
            vectors: float32 [I, D], L2-normalised.
            queries: float32 [N, D], the model's own user vectors.
            seed: of the sample of queries and of the engines.

        Raises:
            SearchIndexError: there are no vectors or no queries, or no engine reaches the recall.
        """
        exact = ExactIndex(vectors)
        check_queries(queries, vectors.shape[1], RECALL_AT)
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if len(vectors) < exact_below:
            flat = faiss.IndexFlatIP(vectors.shape[1])
            flat.add(vectors)
            return cls(flat, _describe("flat", flat, {}, 1.0, 0))
        if len(queries) == 0:
            raise SearchIndexError("expected user vectors to measure the recall of an approximate index, found none")
        sample = np.random.default_rng(seed).permutation(len(queries))[:_MAX_MEASURED]
        return _fastest(vectors, np.ascontiguousarray(queries[sample], np.float32), exact, seed, min_recall)

    @classmethod
    def load(cls, path: Path, description: dict[str, Any], categories: np.ndarray | None = None) -> "FaissIndex":
        """Read an index and check it against the description it was saved with.

        Args:
            path: the file.
            description: what `save` left out.
            categories: keys of each item's categories for filters, int64 [I, C], 0 for none.

        Raises:
            SearchIndexError: the file is not a Faiss index, or of another size than described.
        """
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise SearchIndexError(f"{path}: expected a Faiss index; export the bundle again") from error
        return cls(index, description, categories)

    def save(self, path: Path) -> None:
        """Write the index, without its description, to one file."""
        with replacing_file(path) as temporary:
            try:
                faiss.write_index(self._index, str(temporary))
            except RuntimeError as error:  # Faiss has no other for a full disk
                raise OSError(f"{path}: could not be written ({error})") from error

    @property
    def is_exact(self) -> bool:
        return bool(self.description["kind"] == "flat")

    @property
    def num_vectors(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: np.ndarray, k: int, where: Filter | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Find the k best items of each query; see `Index.search`."""
        check_queries(queries, self._index.d, k)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        allowed = None if where is None else allowed_items(where, self.num_vectors, self._categories)
        num_allowed = self.num_vectors if allowed is None else int(allowed.sum())
        num_found = min(k, num_allowed)
        if num_found == 0:
            return np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), NO_ROW, np.int64)
        selector = None if allowed is None or num_allowed == self.num_vectors else _selector(allowed)
        if selector is not None and self._is_few(num_allowed):
            scores, rows = self._search_exactly(queries, num_found, selector)
        else:
            parameters = self._parameters(num_found, selector, self.num_vectors / num_allowed)
            scores, rows = self._index.search(queries, num_found, params=parameters)
        short = rows[:, -1] < 0
        if short.any():  # an approximate search can visit fewer than k items; exhaust the catalogue instead
            scores[short], rows[short] = self._search_exactly(queries[short], num_found, selector)
        return best_first(scores, rows + 1, k)

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """The indexed vectors of catalogue rows; see `Index.vectors`."""
        check_rows(rows, self.num_vectors)
        return np.asarray(self._index.reconstruct_batch(np.ascontiguousarray(rows - 1)))

    def _is_few(self, num_allowed: int) -> bool:
        """Whether an exact search of the items allowed costs less than a graph's that is widened to meet them."""
        if self.description["kind"] != "hnsw":
            return False  # cells widen to an exact search by themselves
        width = self.description["parameters"]["ef_search"] * self.num_vectors / num_allowed
        return num_allowed < width * _HNSW_NEIGHBOURS

    def _parameters(self, k: int, selector: Any, widening: float) -> Any:
        """The search that was measured, `widening` times as wide, so that it meets as many items that are allowed."""
        parameters = self.description["parameters"]
        if self.description["kind"] == "ivf":
            probes = min(self._index.nlist, math.ceil(parameters["nprobe"] * widening))
            return faiss.SearchParametersIVF(sel=selector, nprobe=probes)
        if self.description["kind"] == "hnsw":
            width = math.ceil(max(parameters["ef_search"], k) * widening)
            return faiss.SearchParametersHNSW(sel=selector, efSearch=width)
        return faiss.SearchParameters(sel=selector)

    def _search_exactly(self, queries: np.ndarray, k: int, selector: Any) -> Any:
        if self.description["kind"] == "ivf":
            every_cell = faiss.SearchParametersIVF(sel=selector, nprobe=self._index.nlist)
            return self._index.search(queries, k, params=every_cell)
        flat = faiss.downcast_index(self._index.storage)
        return flat.search(queries, k, params=faiss.SearchParameters(sel=selector))


def _selector(allowed: np.ndarray) -> Any:
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))  # it keeps the array


def _describe(kind: str, index: Any, parameters: dict[str, int], recall: float, num_queries: int) -> dict[str, Any]:
    return {
        "kind": kind,
        "parameters": parameters,
        "num_vectors": int(index.ntotal),
        "dimension": int(index.d),
        f"recall@{RECALL_AT}": recall,
        "recall_queries": num_queries,
    }


def _fastest(vectors: np.ndarray, queries: np.ndarray, exact: ExactIndex, seed: int, min_recall: float) -> FaissIndex:
    depth = min(RECALL_AT, len(vectors))
    kth_scores = exact.search(queries, depth)[0][:, -1:]
    accepted: list[tuple[float, FaissIndex]] = []
    reached: dict[str, float] = {}
    for candidates in (_ivf_candidates(vectors, seed), _hnsw_candidates(vectors, seed)):
        for kind, index, parameters in candidates:
            seconds, recalls = _measure(
                FaissIndex(index, _describe(kind, index, parameters, 0.0, 0)), queries, kth_scores, depth
            )
            reached[kind] = recalls.mean() - 2 * recalls.std() / len(recalls) ** 0.5
            if reached[kind] >= min_recall:
                description = _describe(kind, index, parameters, float(recalls.mean()), len(queries))
                accepted.append((seconds, FaissIndex(index, description)))
                break
    if not accepted:
        best = ", ".join(f"{kind} {recall:.4f}" for kind, recall in reached.items())
        raise SearchIndexError(
            f"index: expected recall@{RECALL_AT} of at least {min_recall} with two standard errors to spare on "
            f"{len(queries)} user vectors, reached {best}; train the model longer, so that users and items align"
        )
    return min(accepted, key=lambda pair: pair[0])[1]


def _ivf_candidates(vectors: np.ndarray, seed: int) -> Iterator[tuple[str, Any, dict[str, int]]]:
    """One inverted file whose searches visit twice as many cells each time, at most half of them."""
    num_cells = max(4, len(vectors) // _POINTS_PER_CELL)
    quantizer = faiss.IndexFlatIP(vectors.shape[1])
    index = faiss.IndexIVFFlat(quantizer, vectors.shape[1], num_cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed
    index.cp.spherical = True
    index.train(vectors)
    index.add(vectors)
    probes = 1
    while probes <= num_cells // 2:
        yield "ivf", index, {"cells": num_cells, "nprobe": probes}
        probes *= 2


def _hnsw_candidates(vectors: np.ndarray, seed: int) -> Iterator[tuple[str, Any, dict[str, int]]]:
    """One neighbour graph whose searches keep twice as many candidates each time."""
    index = faiss.IndexHNSWFlat(vectors.shape[1], _HNSW_NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _HNSW_CONSTRUCTION
    index.hnsw.rng = faiss.RandomGenerator(seed)
    index.add(vectors)
    for width in _HNSW_SEARCHES:
        yield "hnsw", index, {"neighbours": _HNSW_NEIGHBOURS, "ef_search": width}


def _measure(index: FaissIndex, queries: np.ndarray, kth_scores: np.ndarray, depth: int) -> tuple[float, np.ndarray]:
    """Seconds of the faster of two searches, and per query the share of results as good as the true last one."""
    durations = []
    for _ in range(2):
        start = time.perf_counter()
        scores, rows = index.search(queries, depth)
        durations.append(time.perf_counter() - start)
    return min(durations), ((rows != NO_ROW) & (scores >= kth_scores - _TIE)).mean(axis=1)
