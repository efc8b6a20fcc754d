"""Appended events in Redis, for several serving processes at once; as durable as the server is told to be.

Takes events of users; gives them back in one round trip for a batch of users. A user is one sorted set,
`prefix:user key`. Its members are events of little-endian int64: item, time, dwell, then for each context feature the
key of its name and its own; so other features can be read from it later, and an event that comes again changes nothing.
Scores are times, and in one second fall with every event that comes: the lowest is the one to leave out first.

    score = time + 1 - (events of this second before it + 1) / 2^15

This is exact in the 53 bits of a score, for times up to the year 9999. To import this needs the package `redis`.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

import numpy as np

from prismrec.data.schema import stable_keys
from prismrec.errors import ConfigError
from prismrec.serve.events import CONTEXT, MAX_EVENTS, TIME, Events, StoreUnavailableError, check_context, firsts

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ModuleNotFoundError as error:
    raise ConfigError("events in Redis: expected the package redis; pip install 'prismrec[redis]'") from error

_TIMEOUT = 1.0  # seconds, to connect and for each answer
_PATIENCE = ("socket_timeout", "socket_connect_timeout")
_PARAMETERS = ("db", "username", "password", "client_name", "max_connections", "health_check_interval", *_PATIENCE)
_TLS_PARAMETERS = ("ssl_cert_reqs", "ssl_check_hostname", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_EVENTS_PER_SECOND = 2**15

_APPEND = f"""
for i = 2, #ARGV, 2 do
    local time, event = ARGV[i], ARGV[i + 1]
    local before = redis.call('ZCOUNT', KEYS[1], time, '(' .. time + 1)
    redis.call('ZADD', KEYS[1], 'NX', time + 1 - (before + 1) / {_EVENTS_PER_SECOND}, event)
    redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[1] - 1)
end
"""

_log = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")


class RedisEvents:
    """The `EventStore` of several processes.

    A call whose connection breaks is tried once more over a new one, so a client outlives a restart of the server.

    Args:
        url: redis://[user:password@]host[:port][/number], or rediss:// or unix://; parameters such as
            `?socket_timeout=3`, seconds, may follow.
        context_features: names of the columns of `Events.context`.
        prefix: what the keys of users begin with.
        max_events: newest events of each user kept on the server.

    Raises:
        ConfigError: the URL or `max_events` is not such.
        StoreUnavailableError: the server does not answer.
    """

    def __init__(
        self, url: str, context_features: Sequence[str], prefix: str = "prismrec", max_events: int = MAX_EVENTS
    ) -> None:
        if not 1 <= max_events < _EVENTS_PER_SECOND:
            raise ConfigError(f"max_events={max_events}: expected 1 to {_EVENTS_PER_SECOND - 1} for events in Redis")
        self._features = tuple(context_features)
        self._feature_keys = stable_keys(self._features)
        self._prefix = prefix
        self._max_events = max_events
        self._client = _connect(url)
        place = self._client.connection_pool.connection_kwargs
        self._server = place.get("path") or f"{place.get('host', 'localhost')}:{place.get('port', 6379)}"
        self._append = self._client.register_script(_APPEND)
        self._call(self._warn_if_not_durable)

    def read(self, users: Sequence[int]) -> list[Events]:
        pipeline = self._client.pipeline(transaction=False)
        for user in users:
            pipeline.zrevrange(f"{self._prefix}:{user}", 0, self._max_events - 1)
        answers = [
            self._whole(user, members) for user, members in zip(users, self._call(pipeline.execute), strict=True)
        ]
        place = np.repeat(np.arange(len(users)), [len(members) for members in answers])
        rows = np.column_stack([place, _unpack(list(chain.from_iterable(answers)), self._feature_keys)])
        rows = rows[firsts(rows)]
        rows = rows[np.lexsort((rows[:, 1 + TIME], rows[:, 0]))]
        start, stop = (np.searchsorted(rows[:, 0], np.arange(len(users)), side) for side in ("left", "right"))
        return [Events.of_rows(rows[first:end, 1:]) for first, end in zip(start, stop, strict=True)]

    def append(self, user: int, events: Events) -> None:
        check_context(events, self._features)
        if not len(events):
            return
        arguments: list[int | bytes] = [self._max_events]
        for time, member in zip(events.time.tolist(), _pack(events, self._feature_keys), strict=True):
            arguments += [time, member]
        self._call(lambda: self._append(keys=[f"{self._prefix}:{user}"], args=arguments))

    def close(self) -> None:
        self._client.close()

    def _whole(self, user: int, members: list[bytes]) -> list[bytes]:
        """The members that are events; others were written by something else under this prefix."""
        odd = {length for length in set(map(len, members)) if not _is_event(length)}
        whole = [member for member in members if len(member) not in odd] if odd else members
        if len(whole) < len(members):
            key = f"{self._prefix}:{user}"
            _log.warning(
                "Redis at %s: %s: left out %d values that are no events", self._server, key, len(members) - len(whole)
            )
        return whole

    def _call(self, ask: Callable[[], _Answer]) -> _Answer:
        try:
            return ask()
        except redis.RedisError as error:
            raise StoreUnavailableError(
                f"Redis at {self._server}: expected an answer to a request for events, found "
                f"{type(error).__name__}: {error}; see that the server is up and lets this client in"
            ) from error

    def _warn_if_not_durable(self) -> None:
        try:
            found = {**self._client.config_get("appendonly"), **self._client.config_get("appendfsync")}
        except redis.ResponseError:
            return  # many hosted servers forbid CONFIG, and are set up by whoever hosts them
        if (found.get("appendonly"), found.get("appendfsync")) != ("yes", "always"):
            _log.warning(
                "Redis at %s: appendonly is %s and appendfsync is %s, so events may be lost when it is killed; "
                "expected yes and always",
                self._server,
                found.get("appendonly"),
                found.get("appendfsync"),
            )


def _connect(url: str) -> redis.Redis:
    try:
        _check_parameters(url)
        client = redis.Redis.from_url(
            url,
            socket_timeout=_TIMEOUT,
            socket_connect_timeout=_TIMEOUT,
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
            retry_on_error=[redis.ConnectionError],  # pipelines of redis-py 5 look here
            protocol=2,
        )
        patience = [client.connection_pool.connection_kwargs[name] for name in _PATIENCE]
    except ValueError:  # its text may hold a part of the password
        raise ConfigError(
            "events in Redis: expected the URL redis://[user:password@]host[:port][/number], rediss://... or "
            "unix://..., found something else; what is special in a password is escaped (%40 for @, %2F for /)"
        ) from None
    if not all(0 < seconds <= threading.TIMEOUT_MAX for seconds in patience):
        raise ConfigError(
            f"events in Redis: expected seconds as {' and '.join(_PATIENCE)} of the URL, found {patience}"
        )
    return client


def _check_parameters(url: str) -> None:
    """Refuse what redis-py would fail at with the first request, or would read as something else.

    Raises:
        ConfigError: a parameter is not known, or lacks another one.
        ValueError: the database is no number.
    """
    parts = urlsplit(url)
    known = (*_PARAMETERS, *_TLS_PARAMETERS) if parts.scheme == "rediss" else _PARAMETERS
    given = parse_qs(parts.query, keep_blank_values=True).keys()
    if not given <= set(known):  # what is unknown may be a secret
        raise ConfigError(f"events in Redis: expected no parameters of the URL but {', '.join(known)}; found others")
    if "ssl_keyfile" in given and "ssl_certfile" not in given:
        raise ConfigError("events in Redis: expected ssl_certfile beside ssl_keyfile in the URL, found it missing")
    if parts.scheme != "unix":
        int(parts.path.removeprefix("/") or 0)


def _pack(events: Events, features: np.ndarray) -> list[bytes]:
    """Members of a sorted set, one per event."""
    rows = events.rows
    packed = np.empty((len(rows), CONTEXT + 2 * len(features)), "<i8")
    packed[:, :CONTEXT] = rows[:, :CONTEXT]
    packed[:, CONTEXT::2] = features
    packed[:, CONTEXT + 1 :: 2] = rows[:, CONTEXT:]
    return [event.tobytes() for event in packed]


def _is_event(length: int) -> bool:
    """Whether so many bytes are an event with some number of context features."""
    return length >= 8 * CONTEXT and (length - 8 * CONTEXT) % 16 == 0


def _unpack(members: Sequence[bytes], features: np.ndarray) -> np.ndarray:
    """`Events.rows` of members; 0 for a feature that a member does not have."""
    rows = np.zeros((len(members), CONTEXT + len(features)), np.int64)
    for length in {len(member) for member in members}:
        place = [i for i, member in enumerate(members) if len(member) == length]
        packed = np.frombuffer(b"".join(members[i] for i in place), "<i8").reshape(len(place), -1)
        names, keys = packed[:, CONTEXT::2, None], packed[:, CONTEXT + 1 :: 2, None]
        rows[place, :CONTEXT] = packed[:, :CONTEXT]
        rows[place, CONTEXT:] = np.where(names == features, keys, 0).sum(axis=1)
    return rows
