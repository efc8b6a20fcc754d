"""Connections to a PostgreSQL server with pgvector, kept open between searches.

Takes a URL; gives connections, and one kind of error that names the server and never the password.
"""

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from pgvector.psycopg import register_vector
from psycopg.conninfo import conninfo_to_dict

from prismrec.errors import SearchIndexError

Connection = psycopg.Connection[tuple[Any, ...]]
_Result = TypeVar("_Result")

_PATIENCE = {
    "connect_timeout": 10,  # seconds
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # milliseconds
}
"""Unless the URL says otherwise: a machine that is gone without a word is noticed in half a minute, not in hours."""
_LIMIT = """
    SELECT set_config('statement_timeout', '30s', false) FROM pg_settings
    WHERE name = 'statement_timeout' AND source = 'default'
"""
"""A search is given up after half a minute, unless the URL, the user's role or the server says otherwise."""


class Database:
    """One database; several threads may use it, each search with a connection of its own."""

    def __init__(self, url: str) -> None:
        """Read the URL; nothing is opened yet.

        Raises:
            SearchIndexError: it is not a URL of PostgreSQL.
        """
        try:
            found = conninfo_to_dict(url)
        except psycopg.ProgrammingError:  # its message may quote the password
            raise SearchIndexError(
                "index URL: expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE, found something else; "
                "write special characters of user and password percent-encoded"
            ) from None
        self.place = f"PostgreSQL at {found.get('host', 'localhost')}"
        self._parameters: dict[str, Any] = _PATIENCE | found
        self._idle: deque[Connection] = deque()
        weakref.finalize(self, _close_all, self._idle)

    def run(self, work: Callable[[Connection], _Result]) -> _Result:
        """The result of `work` in a transaction; again on another connection if the server had closed this one.

        Raises:
            SearchIndexError: the server cannot be reached, refuses the work, or takes too long for it.
        """
        while True:
            try:
                connection, is_new = self._idle.pop(), False
            except IndexError:
                connection, is_new = self._connect(), True
            try:
                with self.errors(), connection.transaction():
                    result = work(connection)
            except SearchIndexError:
                was_lost = connection.broken
                connection.close()
                if is_new or not was_lost:
                    raise
            except BaseException:
                connection.close()
                raise
            else:
                self._idle.append(connection)
                return result

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection of its own for long work; statements commit one by one.

        Raises:
            SearchIndexError: the server cannot be reached, or refuses a statement.
        """
        connection = self._connect(for_long_work=True)
        try:
            with self.errors():
                yield connection
        finally:
            connection.close()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Errors of the server as ours."""
        try:
            yield
        except psycopg.Error as error:
            raise SearchIndexError(f"{self.place}: expected an answer, found: {_one_line(error)}") from error

    def _connect(self, for_long_work: bool = False) -> Connection:
        try:
            connection = psycopg.connect(
                autocommit=True,
                prepare_threshold=None,  # a prepared search would be planned without knowing its filter and limit
                **self._parameters,
            )
        except psycopg.Error as error:
            raise SearchIndexError(
                f"{self.place}: expected a server that lets us in, found: {_one_line(error)}; "
                "start it, or correct the index URL"
            ) from error
        try:
            if for_long_work:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
                register_vector(connection)  # whose classes psycopg keeps for ever, so not for each search
            else:
                connection.execute(_LIMIT)
                connection.execute("SELECT 'vector'::regtype")
        except psycopg.Error as error:
            connection.close()
            raise SearchIndexError(
                f"{self.place}: expected the extension pgvector, found: {_one_line(error)}; "
                "install it, and let an administrator run CREATE EXTENSION vector in this database"
            ) from error
        return connection


def _close_all(connections: deque[Connection]) -> None:
    while connections:
        connections.pop().close()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
