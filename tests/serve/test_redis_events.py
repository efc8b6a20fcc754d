"""Events in Redis under real faults: a server that is killed, hangs, forbids or never was."""

import contextlib
import itertools
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import redis

from prismrec.errors import ConfigError, PrismRecError
from prismrec.serve.events import Events, StoreUnavailableError
from prismrec.serve.redis_events import RedisEvents
from soak_processes import Redis


def events(*items: int, time: int = 100) -> Events:
    return Events.of_rows(np.array([[item, time + item, 0] for item in items], np.int64))


def items(store: RedisEvents, user: int = 1) -> list[int]:
    return store.read([user])[0].item.tolist()


class Appending:
    """Four threads that append until told to stop, and go on after every failure."""

    def __init__(self, store: RedisEvents) -> None:
        self._store = store
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._run, args=[thread]) for thread in range(4)]
        self.acknowledged: set[tuple[int, int]] = set()
        self.failures = 0
        for thread in self._threads:
            thread.start()

    def _run(self, thread: int) -> None:
        for turn in itertools.count():
            try:
                self._store.append(thread, events(turn))
                done = True
            except StoreUnavailableError:
                done = False
            with self._changed:
                self.acknowledged |= {(thread, turn)} if done else set()
                self.failures += not done
                self._changed.notify_all()
            if self._stop.wait(0 if done else 0.01):
                return

    def wait(self, enough: Callable[["Appending"], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: enough(self), timeout=60)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(own_redis_server: Redis) -> None:
    chance = random.Random(5)
    with closing(RedisEvents(own_redis_server.url, [])) as store:
        appending = Appending(store)
        try:
            for _ in range(3):
                more = len(appending.acknowledged) + chance.randrange(20, 400)
                appending.wait(lambda now, more=more: len(now.acknowledged) >= more)
                failures = appending.failures
                own_redis_server.kill()
                appending.wait(lambda now, failures=failures: now.failures > failures)
                own_redis_server.start()
        finally:
            appending.stop()
        found = {(user, item) for user in range(4) for item in items(store, user)}
    assert appending.acknowledged <= found
    assert len(found) >= 60


def test_a_server_that_restarts_between_calls_is_not_noticed(own_redis_server: Redis) -> None:
    with closing(RedisEvents(own_redis_server.url, [])) as store:
        store.append(1, events(1))
        own_redis_server.kill()
        own_redis_server.start()
        assert items(store) == [1]
        own_redis_server.kill()
        own_redis_server.start()
        store.append(1, events(2))
        assert items(store) == [1, 2]


class Relay:
    """A network between client and server that breaks `breaks` times when the client next says something."""

    def __init__(self, port: int) -> None:
        self.breaks = 0
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            threading.Thread(target=self._carry, args=[client, server]).start()
            threading.Thread(target=self._carry, args=[server, client]).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source.getsockname()[1] == self._listener.getsockname()[1] and self.breaks:
                    self.breaks -= 1
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def test_a_call_whose_connection_breaks_is_tried_once_more(redis_server: Redis) -> None:
    with closing(Relay(redis_server.port)) as relay, closing(RedisEvents(relay.url, [], prefix="relay")) as store:
        relay.breaks = 1
        store.append(1, events(1))
        assert relay.breaks == 0
        relay.breaks = 1
        assert items(store) == [1]
        assert relay.breaks == 0
        relay.breaks = 1_000
        with pytest.raises(StoreUnavailableError, match="found ConnectionError"):
            store.append(1, events(2))
        with pytest.raises(StoreUnavailableError, match="found ConnectionError"):
            store.read([1])
        assert relay.breaks > 950  # it does not try for long
        relay.breaks = 0
        store.append(1, events(3))
        assert items(store) == [1, 3]


def test_a_server_that_hangs_is_given_up(own_redis_server: Redis) -> None:
    with closing(RedisEvents(own_redis_server.url, [])) as store:
        store.append(1, events(1))
        own_redis_server.process.send_signal(signal.SIGSTOP)
        place = f"127.0.0.1:{own_redis_server.port}"
        with pytest.raises(StoreUnavailableError, match=rf"Redis at {place}: expected an answer .* Timeout"):
            store.append(1, events(2))
        with pytest.raises(StoreUnavailableError, match=rf"Redis at {place}: expected an answer .* Timeout"):
            store.read([1])
        own_redis_server.process.send_signal(signal.SIGCONT)
        store.append(1, events(3))
        assert items(store) in ([1, 3], [1, 2, 3])  # what was not acknowledged may have been stored


def test_a_server_that_is_not_there(own_redis_server: Redis) -> None:
    own_redis_server.kill()
    url = f"redis://someone:secret@127.0.0.1:{own_redis_server.port}"
    with pytest.raises(StoreUnavailableError) as raised:
        RedisEvents(url, [])
    assert isinstance(raised.value, PrismRecError)
    assert f"Redis at 127.0.0.1:{own_redis_server.port}: expected an answer" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_wrong_password_is_not_shown(redis_server: Redis) -> None:
    with pytest.raises(StoreUnavailableError) as raised:
        RedisEvents(f"redis://someone:secret@127.0.0.1:{redis_server.port}", [])
    assert f"Redis at 127.0.0.1:{redis_server.port}: expected an answer" in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://localhost",
        "redis://:sec/ret@host:6379",
        "redis://host/secret",
        "redis://host?db=sec",
        "",
    ],
)
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"expected the URL redis://.*escaped \(%40 for @, %2F for /\)") as raised:
        RedisEvents(url, [])
    assert "sec" not in str(raised.value)


@pytest.mark.parametrize("name", ["secret", "decode_responses", "retry", "protocol", "ssl_cert_reqs", "db=1&secret"])
def test_a_parameter_that_is_not_known_is_refused(redis_server: Redis, name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"expected no parameters of the URL but db, username, .*; found others$"
    ) as e:
        RedisEvents(f"{redis_server.url}?{name}=1", [])
    assert "secret" not in str(e.value)


def test_a_key_without_a_certificate_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected ssl_certfile beside ssl_keyfile"):
        RedisEvents("rediss://localhost?ssl_keyfile=key.pem", [])


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_a_time_that_is_none_is_refused(redis_server: Redis, value: str) -> None:
    with pytest.raises(ConfigError, match=r"expected seconds as socket_timeout and .* of the URL, found \["):
        RedisEvents(f"{redis_server.url}?socket_timeout={value}", [])


def test_parameters_of_the_url(redis_server: Redis) -> None:
    url = f"{redis_server.url}/3?socket_timeout=20&client_name=me&health_check_interval=5&max_connections=4"
    with closing(RedisEvents(url, [])) as store, closing(redis.Redis.from_url(redis_server.url)) as client:
        store.append(1, events(1))
        assert items(store) == [1]
        assert [each["db"] for each in client.client_list() if each["name"] == "me"] == ["3"]


@pytest.mark.parametrize("parameter", ["foo=1", "db=1000"])
def test_the_command_says_on_one_line_what_is_wrong(redis_server: Redis, bundle: Path, parameter: str) -> None:
    events = f"--events={redis_server.url}?{parameter}"
    command = [sys.executable, "-m", "prismrec", "serve", str(bundle), "--port=0", events]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if not line.startswith("{")]) == 1


@pytest.mark.parametrize("max_events", [-1, 0, 2**15])
def test_a_limit_that_cannot_be_kept_is_refused(max_events: int) -> None:
    with pytest.raises(ConfigError, match=rf"max_events={max_events}: expected 1 to 32767 for events in Redis"):
        RedisEvents("redis://localhost", [], max_events=max_events)


@pytest.fixture
def make_server(redis_program: None, tmp_path: Path) -> Iterator[Callable[..., Redis]]:
    made: list[Redis] = []

    def make(*options: str) -> Redis:
        made.append(Redis(tmp_path / "redis", *options))
        made[-1].start()
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--appendonly", "no"), "appendonly is no and appendfsync is everysec"),
        (("--appendonly", "yes"), "appendonly is yes and appendfsync is everysec"),
        (("--appendonly", "yes", "--appendfsync", "always"), None),
        (("--appendonly", "no", "--rename-command", "CONFIG", ""), None),
    ],
)
def test_a_server_that_may_lose_events_is_warned_of(
    make_server: Callable[..., Redis], caplog: pytest.LogCaptureFixture, options: tuple[str, ...], found: str | None
) -> None:
    server = make_server(*options)
    with caplog.at_level(logging.WARNING), closing(RedisEvents(server.url, [])) as store:
        store.append(1, events(1))
        assert items(store) == [1]
    warned = (
        f"Redis at 127.0.0.1:{server.port}: {found}, so events may be lost when it is killed; expected yes and always"
    )
    assert caplog.messages == ([warned] if found else [])


def test_a_user_who_may_not_write_is_told(make_server: Callable[..., Redis]) -> None:
    server = make_server("--user", "reader", "on", ">secret", "~*", "+@read")
    with closing(RedisEvents(f"redis://reader:secret@127.0.0.1:{server.port}", [])) as store:
        assert items(store) == []
        with pytest.raises(
            StoreUnavailableError, match=r"found NoPermissionError: .*see that the server .* lets this"
        ) as e:
            store.append(1, events(1))
    assert "secret" not in str(e.value)


def test_prefixes_keep_services_apart(redis_server: Redis) -> None:
    with (
        closing(RedisEvents(redis_server.url, [], prefix="first")) as first,
        closing(RedisEvents(redis_server.url, [], prefix="second")) as second,
    ):
        first.append(1, events(1))
        second.append(1, events(2))
        assert items(first) == [1]
        assert items(second) == [2]
    with closing(redis.Redis.from_url(redis_server.url)) as client:
        assert client.type("first:1") == b"zset"


def test_several_processes_see_each_others_events(redis_server: Redis) -> None:
    append = (
        "import sys; import numpy as np\n"
        "from prismrec.serve.events import Events; from prismrec.serve.redis_events import RedisEvents\n"
        "RedisEvents(sys.argv[1], [], prefix='shared').append(1, Events.of_rows(np.array([[5, 100, 0]])))"
    )
    with closing(RedisEvents(redis_server.url, [], prefix="shared")) as store:
        done = subprocess.run([sys.executable, "-c", append, redis_server.url], capture_output=True, text=True)
        assert done.stderr == ""
        assert items(store) == [5]


def test_the_server_keeps_no_more_than_the_newest(redis_server: Redis) -> None:
    """Of one second, those that came first."""
    with closing(RedisEvents(redis_server.url, [], prefix="few", max_events=3)) as store:
        latest = 253_402_300_799  # the end of the year 9999
        for time in (5, latest):
            for item in range(1, 6):
                store.append(1, Events.of_rows(np.array([[item, time, 0]])))
        assert store.read([1])[0].rows.tolist() == [[1, latest, 0], [2, latest, 0], [3, latest, 0]]
    with closing(redis.Redis.from_url(redis_server.url)) as client:
        assert client.zcard("few:1") == 3


def test_a_batch_is_one_round_trip(redis_server: Redis) -> None:
    with (
        closing(RedisEvents(redis_server.url, [], prefix="batch")) as store,
        closing(redis.Redis.from_url(redis_server.url)) as client,
    ):
        store.read(range(50))
        before = client.info("stats")["total_reads_processed"]
        store.read(range(50))
        assert client.info("stats")["total_reads_processed"] - before == 2  # the batch, and this question


def test_the_package_is_asked_for_where_it_is_missing() -> None:
    program = "import sys; sys.modules['redis'] = None; import prismrec.serve.redis_events"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 1
    assert "ConfigError: events in Redis: expected the package redis; pip install 'prismrec[redis]'" in done.stderr
