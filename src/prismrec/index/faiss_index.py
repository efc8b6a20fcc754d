"""Search with Faiss: exact for small catalogues, approximate at a measured recall for large ones.

Takes item vectors and the vectors of users who will search; gives an index that is saved to one file, and
a description of it (kind, parameters, measured recall) for the bundle's manifest.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from prismrec.atomic import replacing_file
from prismrec.errors import SearchIndexError, shown
from prismrec.index.allowed import allowed_items, check_categories
from prismrec.index.base import NO_ROW, Filter, best_first, check_queries, check_rows
from prismrec.index.exact import ExactIndex
from prismrec.index.merge import retrieve

EXACT_BELOW = 50_000
MIN_RECALL = 0.99
RECALL_AT = 100
_MAX_MEASURED = 500
_POINTS_PER_CELL = 512
_TRAINED_ON_PER_CELL = 64
_BITS = 4
_RERANKED = (2, 4, 16, 64)
"""This many times the items wanted are found by their codes and ordered by their vectors: the fewest that do."""
_SHORT = 50
_TIE = 1e-6  # Faiss and NumPy add in another order: scores this close count as equal


class FaissIndex:
    """All vectors one by one ("flat"), or cells of 4-bit codes with exact re-ranking ("ivf_pq").

    A search of cells compares a query with the codes of the cells nearest to it, four bits for each coordinate's
    distance from the cell's centre, dozens of codes per instruction (Andre et al., VLDB 2015), and orders the best
    of them by their vectors.
    """

    def __init__(self, index: Any, description: dict[str, Any], categories: np.ndarray | None = None) -> None:
        """Use `index` as `description` says; see `build` and `load`."""
        found = {"num_vectors": index.ntotal, "dimension": index.d}
        expected = {name: description[name] for name in found}
        if found != expected:
            raise SearchIndexError(f"index: expected {shown(expected)}, found {found}; export the bundle again")
        check_categories(categories, index.ntotal)
        self._index = index
        self._categories = categories
        self.description = description
        if description["kind"] not in ("flat", "ivf_pq"):
            other = shown(description["kind"])
            raise SearchIndexError(f"index: expected a kind that is known, found {other}; export again")
        if not _is_of_kind(index, description["kind"]):
            kind, found_kind = description["kind"], type(index).__name__
            raise SearchIndexError(f"index: expected {kind} for inner products, found {found_kind}; export again")

    @classmethod
    def build(
        cls,
        vectors: np.ndarray,
        users: np.ndarray,
        seed: int = 0,
        *,
        exact_below: int = EXACT_BELOW,
        min_recall: float = MIN_RECALL,
    ) -> "FaissIndex":
        """Index `vectors`; from `exact_below` of them in cells.

        Recall@100 of the lists that users get, merged over their vectors, is measured against exact search for a
        sample of `users`: a search visits more cells until its recall, less two standard errors, reaches
        `min_recall`. Where codes are too coarse for that, all vectors are searched one by one.

        Args:
            vectors: float32 [I, D], L2-normalised.
            users: float32 [N, V, D], as the model gives them.
            seed: of the sample of users and of the cells.

        Raises:
            SearchIndexError: there are no vectors, or no users where they are needed.
        """
        exact = ExactIndex(vectors)
        check_queries(users.reshape(-1, users.shape[-1]), vectors.shape[1], RECALL_AT)
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if len(vectors) < exact_below:
            return _flat(vectors)
        if len(users) == 0:
            raise SearchIndexError("expected user vectors to measure the recall of an approximate index, found none")
        sample = np.random.default_rng(seed).permutation(len(users))[:_MAX_MEASURED]
        return _narrowest(vectors, users[sample], exact, seed, min_recall)

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
        try:
            return cls(index, description, categories)
        except SearchIndexError as error:
            raise SearchIndexError(f"{path}: {error}") from error

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

    def _parameters(self, k: int, selector: Any, widening: float) -> Any:
        """The search that was measured, `widening` times as wide, so that it meets as many items that are allowed.

        Lists longer than those measured are searched for in as many more cells. For a short list as many items are
        ordered by their vectors as for one of `_SHORT`: codes are too coarse to have the best one among their two best.
        """
        if self.is_exact:
            return faiss.SearchParameters(sel=selector)
        chosen = self.description["parameters"]
        probes = min(chosen["cells"], math.ceil(chosen["nprobe"] * widening * max(1.0, k / RECALL_AT)))
        return faiss.IndexRefineSearchParameters(
            k_factor=chosen["reranked"] * max(1.0, _SHORT / k),
            base_index_params=faiss.SearchParametersIVF(sel=selector, nprobe=probes),
        )

    def _search_exactly(self, queries: np.ndarray, k: int, selector: Any) -> Any:
        flat = faiss.downcast_index(self._index.refine_index)
        return flat.search(queries, k, params=faiss.SearchParameters(sel=selector))


def _is_of_kind(index: Any, kind: str) -> bool:
    """Whether Faiss read what `build` makes: another index has other scores, or takes other parameters."""
    parts = [(index, faiss.IndexFlat)]
    if kind == "ivf_pq":
        if not isinstance(index, faiss.IndexRefineFlat):
            return False
        cells, vectors = faiss.downcast_index(index.base_index), faiss.downcast_index(index.refine_index)
        parts = [(index, faiss.IndexRefineFlat), (cells, faiss.IndexIVFPQFastScan), (vectors, faiss.IndexFlat)]
    return all(isinstance(part, its) and part.metric_type == faiss.METRIC_INNER_PRODUCT for part, its in parts)


def _selector(allowed: np.ndarray) -> Any:
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))  # it keeps the array


def _describe(kind: str, index: Any, parameters: dict[str, int], recall: float, num_users: int) -> dict[str, Any]:
    return {
        "kind": kind,
        "parameters": parameters,
        "num_vectors": int(index.ntotal),
        "dimension": int(index.d),
        f"recall@{RECALL_AT}": recall,
        "recall_users": num_users,
    }


def _narrowest(vectors: np.ndarray, users: np.ndarray, exact: ExactIndex, seed: int, min_recall: float) -> FaissIndex:
    """The narrowest search of cells that reaches the recall; where codes are too coarse for it, all vectors."""
    last_scores = retrieve(exact, users, min(RECALL_AT, len(vectors))).score[:, -1:]
    cells = _in_cells(vectors, seed)

    def searched(parameters: dict[str, int]) -> tuple[FaissIndex, bool]:
        recalls = _recalls(FaissIndex(cells, _describe("ivf_pq", cells, parameters, 0.0, 0)), users, last_scores)
        description = _describe("ivf_pq", cells, parameters, float(recalls.mean()), len(users))
        surely = recalls.mean() - 2 * recalls.std() / len(recalls) ** 0.5
        return FaissIndex(cells, description), surely >= min_recall

    for reranked in _RERANKED:
        *narrower, widest = _searches(_num_cells(len(vectors)), reranked)
        index, reached = searched(widest)
        if reached:
            return next((found for found, enough in map(searched, narrower) if enough), index)
    return _flat(vectors)


def _in_cells(vectors: np.ndarray, seed: int) -> Any:
    num_items, dimension = vectors.shape
    quantizer = faiss.IndexFlatIP(dimension)
    cells = faiss.IndexIVFPQFastScan(
        quantizer, dimension, _num_cells(num_items), dimension, _BITS, faiss.METRIC_INNER_PRODUCT
    )
    cells.by_residual = True
    cells.cp.seed = cells.pq.cp.seed = seed
    cells.cp.spherical = True
    cells.cp.max_points_per_centroid = _TRAINED_ON_PER_CELL
    cells.train(vectors)
    index = faiss.IndexRefineFlat(cells)
    index.add(vectors)
    return index


def _num_cells(num_items: int) -> int:
    return max(4, num_items // _POINTS_PER_CELL)


def _flat(vectors: np.ndarray) -> FaissIndex:
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    return FaissIndex(flat, _describe("flat", flat, {}, 1.0, 0))


def _searches(num_cells: int, reranked: int) -> Iterator[dict[str, int]]:
    """Searches that visit more and more cells, a quarter as many again each time, at last all."""
    probes = 1
    while True:
        yield {"cells": num_cells, "nprobe": min(probes, num_cells), "bits": _BITS, "reranked": reranked}
        if probes >= num_cells:
            return
        probes += math.ceil(probes / 4)


def _recalls(index: FaissIndex, users: np.ndarray, last_scores: np.ndarray) -> np.ndarray:
    """Per user, the share of a list that is as good as the last item of the true one."""
    scores = retrieve(index, users, min(RECALL_AT, index.num_vectors)).score
    return (scores >= last_scores - _TIE).mean(axis=1)
