"""Micro-batches: queries that arrive while others are being answered wait, and are then answered together.

Takes a function of a list of queries; gives an awaitable function of one list. Nobody waits for company: a query
that finds nobody before it goes at once, so that batches form only under load.
"""

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from prismrec.errors import SearchIndexError
from prismrec.serve.events import StoreUnavailableError

_UNAVAILABLE = (StoreUnavailableError, SearchIndexError)
"""Errors of all: to wait for a server that does not answer once per query would keep everybody waiting."""

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


@dataclass(frozen=True)
class _Job(Generic[Asked, Answered]):
    queries: Sequence[Asked]
    loop: asyncio.AbstractEventLoop
    answers: "asyncio.Future[list[Answered]]"


class Batcher(Generic[Asked, Answered]):
    """Answers whatever waits, up to a number of queries at a time, in worker threads or on the event loop."""

    def __init__(
        self,
        answer: Callable[[list[Asked]], list[Answered]],
        most: int,
        workers: int = 1,
        *,
        on_loop: Callable[[Asked], bool] | None = None,
    ) -> None:
        """Start the workers.

        Args:
            answer: the function; called by several threads if there are several workers.
            most: queries answered together.
            workers: threads.
            on_loop: which single queries to answer on the event loop itself, those that take milliseconds: two threads
                would often wait for each other's turn in the interpreter. Others, and lists, go to the workers.
        """
        self._answer, self._most, self._on_loop = answer, most, on_loop
        self._next_turn: deque[_Job[Asked, Answered]] = deque()
        self._waiting: queue.SimpleQueue[_Job[Asked, Answered] | None] = queue.SimpleQueue()
        self._workers = [threading.Thread(target=self._work, name="batcher", daemon=True) for _ in range(workers)]
        for worker in self._workers:
            worker.start()

    async def __call__(self, queries: Sequence[Asked]) -> list[Answered]:
        """Answer queries, perhaps together with those of others; a batch that fails is tried again request by request.

        Raises:
            Exception: what the function raised; `StoreUnavailableError` and `SearchIndexError` at the first try.
        """
        loop = asyncio.get_running_loop()
        job = _Job[Asked, Answered](queries, loop, loop.create_future())
        if self._on_loop is not None and len(queries) == 1 and self._on_loop(queries[0]):
            self._next_turn.append(job)
            loop.call_soon(self._take_turn)  # after those that arrived in the same turn of the loop
        else:
            self._waiting.put(job)
        return await job.answers

    def close(self) -> None:
        """Answer what waits, then stop; again, it does nothing."""
        self._waiting.put(None)
        for worker in self._workers:
            worker.join()

    def _take_turn(self) -> None:
        jobs = [self._next_turn.popleft() for _ in range(min(self._most, len(self._next_turn)))]
        if jobs:
            self._answer_together(jobs)

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            jobs, size = [job], len(job.queries)
            while size < self._most and (job := self._next()) is not None:
                jobs.append(job)
                size += len(job.queries)
            self._answer_together(jobs)
        self._waiting.put(None)  # for the other workers

    def _next(self) -> _Job[Asked, Answered] | None:
        """What waits, if anything does; the sign to stop is put back."""
        try:
            job = self._waiting.get_nowait()
        except queue.Empty:
            return None
        if job is None:
            self._waiting.put(None)
        return job

    def _answer_together(self, jobs: list[_Job[Asked, Answered]]) -> None:
        try:
            answers = iter(self._answer([query for job in jobs for query in job.queries]))
            for job in jobs:
                _settle(job, partial(job.answers.set_result, [next(answers) for _ in job.queries]))
        except Exception as error:
            if len(jobs) == 1 or isinstance(error, _UNAVAILABLE):
                for job in jobs:
                    _settle(job, partial(job.answers.set_exception, error))
            else:
                for job in jobs:  # one of them is to blame, and the others shall not suffer
                    self._answer_together([job])


def _settle(job: _Job[Any, Any], settle: Callable[[], None]) -> None:
    """Answer on the job's own loop, unless nobody waits any more."""

    def unless_done() -> None:
        if not job.answers.done():
            settle()

    with contextlib.suppress(RuntimeError):  # the loop is closed, and whoever asked is gone with it
        job.loop.call_soon_threadsafe(unless_done)
