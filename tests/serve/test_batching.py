import asyncio
import threading

import pytest

from prismrec.serve.batching import Batcher
from prismrec.serve.events import StoreUnavailableError


class Doubling:
    """Doubles numbers, and waits at a gate, so that queries pile up behind it.

    It refuses negative ones, and at 0 the server that it asks does not answer.
    """

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        assert self.gate.wait(10)
        if 0 in numbers:
            raise StoreUnavailableError("no answer")
        if min(numbers) < 0:
            raise ValueError(f"negative in {numbers}")
        return [2 * number for number in numbers]


async def _pile_up(batcher: Batcher[int, int], double: Doubling, queries: list[list[int]]) -> list[object]:
    double.gate.clear()
    tasks = [asyncio.ensure_future(batcher(queries[0]))]
    while not double.batches:
        await asyncio.sleep(0.001)
    tasks += [asyncio.ensure_future(batcher(numbers)) for numbers in queries[1:]]
    await asyncio.sleep(0.01)
    double.gate.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_a_query_that_finds_nobody_before_it_goes_alone() -> None:
    double = Doubling()
    batcher = Batcher(double, 8)
    assert asyncio.run(batcher([1, 2])) == [2, 4]
    assert asyncio.run(batcher([3])) == [6]
    assert double.batches == [[1, 2], [3]]
    batcher.close()


def test_what_waits_is_answered_together_up_to_the_limit() -> None:
    double = Doubling()
    batcher = Batcher(double, 4)
    answers = asyncio.run(_pile_up(batcher, double, [[1], [2], [3, 4], [5], [6]]))
    assert answers == [[2], [4], [6, 8], [10], [12]]
    assert double.batches == [[1], [2, 3, 4, 5], [6]]
    batcher.close()


def test_an_error_is_of_the_one_to_blame() -> None:
    double = Doubling()
    batcher = Batcher(double, 8)
    first, good, bad, other = asyncio.run(_pile_up(batcher, double, [[1], [2], [-3], [4]]))
    assert (first, good, other) == ([2], [4], [8])
    assert isinstance(bad, ValueError)
    assert str(bad) == "negative in [-3]"
    batcher.close()


def test_a_server_that_does_not_answer_is_asked_once_for_all() -> None:
    double = Doubling()
    batcher = Batcher(double, 8)
    first, *others = asyncio.run(_pile_up(batcher, double, [[1], [2], [0], [4]]))
    assert first == [2]
    assert [type(error) for error in others] == [StoreUnavailableError] * 3
    assert double.batches == [[1], [2, 0, 4]]
    batcher.close()


def test_closing_answers_what_waits() -> None:
    double = Doubling()
    batcher = Batcher(double, 8)

    async def close_behind() -> list[object]:
        answers = asyncio.ensure_future(_pile_up(batcher, double, [[1], [2], [3]]))
        while len(double.batches) < 1:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.005)
        await asyncio.to_thread(batcher.close)
        return await answers

    assert asyncio.run(close_behind()) == [[2], [4], [6]]


def test_who_no_longer_waits_disturbs_nobody() -> None:
    double = Doubling()
    batcher = Batcher(double, 8)

    async def give_up() -> list[int]:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(batcher([1]), 0.02)
        double.gate.set()
        return await batcher([2])

    double.gate.clear()
    assert asyncio.run(give_up()) == [4]
    batcher.close()


def test_on_the_loop_light_queries_of_one_turn_are_answered_together_and_others_by_a_worker() -> None:
    double, threads = Doubling(), set()

    def answer(numbers: list[int]) -> list[int]:
        threads.add((len(numbers), threading.current_thread() is threading.main_thread()))
        return double(numbers)

    batcher = Batcher(answer, 3, on_loop=lambda number: number < 7)

    async def ask() -> list[object]:
        tasks = [asyncio.ensure_future(batcher([number])) for number in (1, -2, 3, 4)]
        return await asyncio.gather(*tasks, batcher([5, 6]), batcher([7]), return_exceptions=True)

    first, bad, *others = asyncio.run(ask())
    assert (first, others) == ([2], [[6], [8], [10, 12], [14]])
    assert isinstance(bad, ValueError)
    # three, each of them again, the fourth; the list and the heavy one, together if the worker was late
    assert sorted(map(len, double.batches)) in ([1, 1, 1, 1, 1, 2, 3], [1, 1, 1, 1, 3, 3])
    assert {size for size, on_loop in threads if on_loop} == {1, 3}
    assert {size for size, on_loop in threads if not on_loop} in ({1, 2}, {3})
    batcher.close()
