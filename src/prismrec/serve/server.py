"""A server process: from addresses and settings to a listening socket, until a signal ends it."""

import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import uvicorn

from prismrec.serve.app import create_app
from prismrec.serve.connection import Connection
from prismrec.serve.logs import log_as_json
from prismrec.serve.metrics import Metrics
from prismrec.serve.opening import open_host
from prismrec.serve.settings import ServeConfig

KEY = "PRISMREC_API_KEY"
_PATIENCE = 30  # seconds for what is begun when the server is told to stop


def run_server(
    bundle: Path,
    settings: ServeConfig,
    *,
    host: str,
    port: int,
    index: str | None,
    events: str | None,
    say: Callable[[str], None],
) -> None:
    """Serve a bundle until SIGINT or SIGTERM, and answer what is begun by then.

    Args:
        bundle: a bundle or a link to one.
        settings: of the service.
        host: address to listen on, IPv4 or IPv6.
        port: to listen on; 0 takes a free one.
        index: see `open_host`.
        events: see `open_host`.
        say: is told where the server listens, once it is ready.

    Raises:
        PrismRecError: what is to be served cannot be.
        OSError: the address cannot be listened on.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it would end the process; the application looks at the path again
    log_as_json()
    metrics = Metrics()
    opened = open_host(bundle, settings, metrics, index=index, events=events)
    application = create_app(opened, settings, metrics, os.environ.get(KEY))
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            http=partial(Connection, max_head_seconds=settings.max_body_seconds),  # type: ignore[arg-type]
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_PATIENCE,
        )
    )
    numeric = ":" in host  # an address of IPv6
    family = socket.AF_INET6 if numeric else socket.AF_INET
    with contextlib.closing(opened), socket.create_server((host, port), family=family) as listener:
        name, taken = f"[{host}]" if numeric else host, listener.getsockname()[1]
        # what the system takes in advance counts as read; by itself it would take megabytes
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        gc.collect()
        gc.freeze()
        gc.collect()  # counts what is not frozen, or the next whole collection would wait for a quarter of what is
        say(f"{bundle}: served at http://{name}:{taken}, until Ctrl-C")
        # Uvicorn raises the signal again after it has answered what it had begun; that is no failure
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        server.run([listener])
