"""Search in PostgreSQL with the extension pgvector (0.6.2 or newer).

Takes a server's URL and a name; `load` writes item vectors to a table of that name, `open` searches
them. One table, `prismrec_indexes`, records what the others hold and whether their loading finished.
How fast the neighbour graph is built is up to the server's `maintenance_work_mem`.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from psycopg import sql

from prismrec.errors import SearchIndexError
from prismrec.index.base import NO_ROW, Filter, best_first, check_filter, check_queries, check_rows
from prismrec.index.loading import Block, ItemBlocks, Progress, check_name, check_same
from prismrec.index.postgres import Connection, Database

_MAX_DIMENSION = 2000  # pgvector indexes no longer vectors
_MIN_WIDTH, _MAX_WIDTH = 200, 1000  # of a search in the graph; the latter is pgvector's limit

_CREATE_RECORDS = """
    CREATE TABLE IF NOT EXISTS prismrec_indexes (
        name text PRIMARY KEY, fingerprint text NOT NULL, dimension int NOT NULL, categories boolean NOT NULL,
        finished boolean NOT NULL DEFAULT false
    )
"""
_CREATE_TABLE = """
    CREATE TABLE {table} ("row" bigint PRIMARY KEY, vector vector({dimension}) NOT NULL, categories bigint[] NOT NULL)
"""
_CREATE_INDEXES = """
    CREATE INDEX {graph} ON {table} USING hnsw (vector vector_ip_ops) WITH (m = 32, ef_construction = 128);
    CREATE INDEX {categories} ON {table} USING gin (categories)
"""
_RECORD = ("fingerprint", "dimension", "categories", "finished")
_SEARCH = """
    SELECT "row", vector <#> %(query)s::real[]::vector AS distance FROM {table} WHERE {condition}
    ORDER BY distance LIMIT %(k)s
"""


class PgvectorIndex:
    """A table of item vectors with a neighbour graph over them; safe to use from several threads."""

    is_exact = False

    def __init__(self, database: Database, name: str, num_vectors: int, dimension: int, has_categories: bool) -> None:
        """Search the table `name`; see `open`."""
        self.num_vectors = num_vectors
        self._database = database
        self._table = sql.Identifier(name)
        self._dimension = dimension
        self._has_categories = has_categories

    @classmethod
    def open(cls, url: str, name: str, *, fingerprint: str, num_vectors: int, dimension: int) -> "PgvectorIndex":
        """Open what `load` has written.

        Raises:
            SearchIndexError: the server cannot be reached, the table is missing, not loaded to its end, or
                holds other vectors than expected.
        """
        check_name(name)
        database = Database(url)
        record = database.run(lambda connection: _record(connection, name))
        place = f"{database.place}, index {name!r}"
        if record is None:
            raise SearchIndexError(f"{place}: expected item vectors, found none of this name; load the index first")
        if not record["finished"]:
            raise SearchIndexError(f"{place}: expected a finished index, found one half loaded; load it again to go on")
        count = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name))
        record["num_vectors"] = database.run(lambda connection: _only(connection, count))
        expected = {"fingerprint": fingerprint, "dimension": dimension, "num_vectors": num_vectors}
        check_same(place, expected, record, _replace(name))
        return cls(database, name, num_vectors, dimension, record["categories"])

    @staticmethod
    def load(
        url: str,
        name: str,
        vectors: np.ndarray | Iterable[np.ndarray],
        categories: np.ndarray | None = None,
        *,
        fingerprint: str,
        progress: Progress = lambda _: None,
    ) -> None:
        """Write item vectors to a table and index them; goes on where an earlier call stopped.

        Args:
            url: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`.
            name: of the table; lower-case letters, digits and underscores.
            vectors: float32 [I, D], whole or in blocks [N, D]; each block is committed by itself.
            categories: keys of each item's categories for filters, int64 [I, C], 0 for none.
            fingerprint: tells these vectors from all others.
            progress: called after each block with the number of items loaded by then.

        Raises:
            SearchIndexError: the server cannot be reached or refuses the work, the table holds other
                vectors, or these cannot be indexed.
        """
        check_name(name)
        items = ItemBlocks(vectors, categories)
        if items.dimension > _MAX_DIMENSION:
            raise SearchIndexError(
                f"item vectors: expected at most {_MAX_DIMENSION} dimensions, which is what pgvector indexes, "
                f"found {items.dimension}; train with a smaller model.embedding_dim"
            )
        database = Database(url)
        place = f"{database.place}, index {name!r}"
        with database.connection() as connection:
            # one loader at a time; after a loader's death this waits until the server has noticed it
            connection.execute("SELECT pg_advisory_lock(hashtext(%s))", [name])
            record = _record(connection, name)
            if record is None:
                _create(connection, name, items, fingerprint)
            else:
                check_same(place, items.record(fingerprint), record, _replace(name))
                if record["finished"]:
                    return
            table = sql.Identifier(name)
            num_loaded = _only(connection, sql.SQL("SELECT count(*) FROM {}").format(table))
            for block in items.beyond(num_loaded):
                _copy(connection, table, block)
                progress(items.num_read)
            count = _only(connection, sql.SQL("SELECT count(*) FROM {}").format(table))
            check_same(place, {"items": items.num_read}, {"items": count}, _replace(name))
            _finish(connection, name)

    def search(self, queries: np.ndarray, k: int, where: Filter | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Find the k best items of each query; see `Index.search`."""
        check_queries(queries, self._dimension, k)
        where = where or Filter()
        check_filter(where, self._has_categories)
        queries = np.asarray(queries, dtype=np.float32)
        num_wanted = min(k, self.num_vectors)
        scores = np.full((len(queries), num_wanted), -np.inf, np.float32)
        rows = np.full((len(queries), num_wanted), NO_ROW, np.int64)
        found = self._select(queries, num_wanted, where, exactly=num_wanted > _MAX_WIDTH)
        # the graph is left with fewer where the filter takes most of what it meets; then the table is scanned
        short = [number for number, results in enumerate(found) if len(results) < num_wanted <= _MAX_WIDTH]
        for number, results in zip(short, self._select(queries[short], num_wanted, where, exactly=True), strict=True):
            found[number] = results
        for number, results in enumerate(found):
            if results:
                rows[number, : len(results)], distances = zip(*results, strict=True)
                scores[number, : len(results)] = np.negative(distances)
        return best_first(scores, rows, k)

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """The vectors of catalogue rows; see `Index.vectors`."""
        check_rows(rows, self.num_vectors)
        distinct, place = np.unique(rows, return_inverse=True)
        statement = sql.SQL('SELECT vector::real[] FROM {} WHERE "row" = ANY(%s::bigint[]) ORDER BY "row"')
        found = self._database.run(
            lambda connection: connection.execute(
                statement.format(self._table), [distinct.tolist()], binary=True
            ).fetchall()
        )
        return np.array(found, np.float32).reshape(len(distinct), self._dimension)[place]

    def _select(self, queries: np.ndarray, k: int, where: Filter, exactly: bool) -> list[list[tuple[Any, ...]]]:
        """Row and negative inner product of at most k items of each query."""
        condition, values = _condition(where)
        statement = sql.SQL(_SEARCH).format(table=self._table, condition=condition)
        width = _width(k, where)

        def select(connection: Connection) -> list[list[tuple[Any, ...]]]:
            # what is off is a last resort: the graph is searched also where the planner would rather scan
            connection.execute("SET LOCAL enable_indexscan = off" if exactly else "SET LOCAL enable_seqscan = off")
            connection.execute(f"SET LOCAL hnsw.ef_search = {width}")
            with connection.pipeline():
                cursors = [
                    connection.execute(statement, {"query": query, "k": k, **values}, binary=True)
                    for query in queries.tolist()
                ]
            return [cursor.fetchall() for cursor in cursors]

        return self._database.run(select) if len(queries) else []


def _width(k: int, where: Filter) -> int:
    """Items that a search in the graph keeps: the filter takes what it forbids from them, and k must be left."""
    if where.names_categories or where.rows is not None:
        return _MAX_WIDTH
    return min(_MAX_WIDTH, max(_MIN_WIDTH, 2 * k) + len(where.excluded_rows))


def _condition(where: Filter) -> tuple[sql.Composable, dict[str, list[int]]]:
    """A filter as a condition of SQL and the values in it."""
    conditions: list[str] = []
    values: dict[str, list[int]] = {}
    if where.categories is not None:
        conditions.append("categories && %(categories)s::bigint[]")
        values["categories"] = [int(key) for key in where.categories]
    if where.excluded_categories:
        conditions.append("NOT categories && %(excluded_categories)s::bigint[]")
        values["excluded_categories"] = [int(key) for key in where.excluded_categories]
    if where.rows is not None:
        conditions.append('"row" = ANY(%(rows)s::bigint[])')
        values["rows"] = where.rows.tolist()
    if len(where.excluded_rows):
        conditions.append('"row" <> ALL(%(excluded_rows)s::bigint[])')
        values["excluded_rows"] = where.excluded_rows.tolist()
    return sql.SQL(" AND ".join(conditions) or "true"), values


def _record(connection: Connection, name: str) -> dict[str, Any] | None:
    """What the table `name` holds; None if there is no such table."""
    if _only(connection, sql.SQL("SELECT to_regclass('prismrec_indexes')")) is None:
        return None
    statement = sql.SQL("SELECT {} FROM prismrec_indexes WHERE name = %s")
    fields = sql.SQL(", ").join(map(sql.Identifier, _RECORD))
    found = connection.execute(statement.format(fields), [name]).fetchone()
    return None if found is None else dict(zip(_RECORD, found, strict=True))


def _create(connection: Connection, name: str, items: ItemBlocks, fingerprint: str) -> None:
    with connection.transaction():
        # two loaders of different names may both be the first
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('prismrec_indexes'))")
        connection.execute(_CREATE_RECORDS)
        connection.execute(
            "INSERT INTO prismrec_indexes (name, fingerprint, dimension, categories) VALUES"
            " (%(name)s, %(fingerprint)s, %(dimension)s, %(categories)s)",
            {"name": name, **items.record(fingerprint)},
        )
        connection.execute(
            sql.SQL(_CREATE_TABLE).format(table=sql.Identifier(name), dimension=sql.Literal(items.dimension))
        )


def _copy(connection: Connection, table: sql.Identifier, block: Block) -> None:
    """Write one block, all or nothing."""
    statement = sql.SQL('COPY {} ("row", vector, categories) FROM STDIN WITH (FORMAT binary)').format(table)
    with connection.cursor().copy(statement) as copy:
        copy.set_types(["int8", "vector", "int8[]"])
        for row, vector, categories in zip(block.rows.tolist(), block.vectors, block.categories, strict=True):
            copy.write_row((row, vector, categories))


def _finish(connection: Connection, name: str) -> None:
    with connection.transaction():
        connection.execute(
            sql.SQL(_CREATE_INDEXES).format(
                table=sql.Identifier(name),
                graph=sql.Identifier(f"{name}_graph"),
                categories=sql.Identifier(f"{name}_categories"),
            )
        )
        connection.execute("UPDATE prismrec_indexes SET finished = true WHERE name = %s", [name])
    connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(name)))


def _only(connection: Connection, statement: sql.SQL | sql.Composed) -> Any:
    found = connection.execute(statement).fetchone()
    return found and found[0]


def _replace(name: str) -> str:
    return (
        f"load under another name, or remove this one: DROP TABLE {name}; "
        f"DELETE FROM prismrec_indexes WHERE name = '{name}'"
    )
