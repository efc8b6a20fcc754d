"""The processes ("ranks") that train one model together: how they join, decide together and fail together.

torchrun starts them and says by environment variables which is which. A process that was started otherwise is
alone, and everything here costs it nothing.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]  # torch lists neither
from torch.distributed.rendezvous import rendezvous

from prismrec.errors import ConfigError, PrismRecError, RankError

_PATIENCE = timedelta(minutes=30)  # for a rank that writes a checkpoint, or reads a large store
_GRACE = 30.0  # seconds for the rank that failed to say so and end

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """One of `size` processes, and what they do together."""

    rank: int = 0
    size: int = 1
    place: int = 0
    """Of this process on its machine: which of the GPUs is its own."""
    restarted: bool = False
    """torchrun started all of them again, after one was lost."""

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def on_first(self, function: Callable[[], T]) -> T:
        """Call on rank 0 alone; its result, or its error, becomes that of all.

        Raises:
            RankError: on the other ranks, if it failed.
        """
        result = self.together(lambda: function() if self.first else None)
        return self.gather(result)[0]  # type: ignore[return-value]

    def together(self, function: Callable[[], T]) -> T:
        """Call on every rank, without communication inside; if one fails, all do, so that none waits for it.

        Raises:
            RankError: another rank failed, or failed too and is the one to say so.
        """
        if self.size == 1:
            return function()
        result: Any = None
        error: Exception | None = None
        try:
            result = function()
        except Exception as caught:
            error = caught
        messages = self.gather(None if error is None else str(error))
        failed = next((rank for rank, message in enumerate(messages) if message is not None), None)
        if error is not None and failed == self.rank:
            raise error
        if failed is not None:
            time.sleep(_GRACE)  # torchrun ends this one before, unless it goes first: then nobody hears what was wrong
            raise RankError(f"rank {failed}: {messages[failed]}")
        return result

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, on all ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def add_up_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace the gradient of each by its sum over the ranks; one that no rank has stays None."""
        if self.size == 1 or not parameters:
            return
        there = parameters[0].new_tensor([parameter.grad is not None for parameter in parameters])
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([there, *(part.flatten() for part in parts)])
        distributed.all_reduce(flat)
        there, *sums = flat.split([len(parameters), *(part.numel() for part in parts)])
        for parameter, found, total in zip(parameters, there.tolist(), sums, strict=True):
            parameter.grad = total.view_as(parameter) if found else None

    def add_up(self, value: Tensor) -> Tensor:
        """Sum of a tensor over the ranks."""
        if self.size > 1:
            value = value.clone()
            distributed.all_reduce(value)
        return value


ALONE = Ranks()


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the processes that torchrun started, as its environment variables say, if they have not joined yet.

    Raises:
        ConfigError: there are several, and TorchRec is not installed.
        RankError: another rank has failed or is gone.
    """
    size = int(os.environ.get("WORLD_SIZE", 1)) if "LOCAL_RANK" in os.environ else 1  # schedulers set some of them too
    if size == 1:
        yield Ranks(restarted=_restarted())
        return
    ranks = Ranks(int(os.environ["RANK"]), size, int(os.environ["LOCAL_RANK"]), _restarted())
    if distributed.is_initialized():
        yield ranks
        return
    check_torchrec()
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.place % torch.cuda.device_count())
    try:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, store=_meet(ranks), rank=ranks.rank, world_size=size, timeout=_PATIENCE)
        yield ranks
        distributed.barrier()
    except (PrismRecError, OSError):
        distributed.destroy_process_group()  # or its threads may outlive what they need, and abort the process
        raise
    except RuntimeError as error:
        if not _is_lost(error):
            raise
        raise RankError(f"rank {ranks.rank}: lost another rank ({error})") from error
    distributed.destroy_process_group()


def is_first() -> bool:
    """Whether this process is the one that speaks, of those that torchrun started, or alone."""
    return int(os.environ.get("RANK", 0)) == 0


def choose_device(name: str, place: int = 0) -> torch.device:
    """`auto` takes a GPU where there is one, that at `place` on this machine.

    Raises:
        ConfigError: cuda is asked for and not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device='cuda': no CUDA device is available; use train.device=auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and place:
        return torch.device(name, place % torch.cuda.device_count())
    return torch.device(name)


def memory_of_rank(device: torch.device, ranks_per_machine: int) -> int:
    """Bytes that each of several ranks on this machine has: its GPU's, or its part of the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // ranks_per_machine


def check_torchrec() -> None:
    """Check that what several processes need is installed.

    Raises:
        ConfigError: it is not.
    """
    try:
        import torchrec  # noqa: F401
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"training in several processes needs TorchRec, which is not there ({error}): run `make distributed`, or "
            "what docs/scaling.md says"
        ) from error


def _meet(ranks: Ranks) -> Store:
    """A store that only the processes of this start know.

    torchrun keeps one store through all its restarts, in which a process finds addresses of the dead. How often it
    has restarted is no name for a start: a machine that joins later counts from 0. So the first rank chooses a name,
    and answers with it whatever question it finds from each of the others, until that rank says that it has heard.
    """
    store, _, _ = next(rendezvous("env://", timeout=_PATIENCE))
    name = uuid.uuid4().hex
    if not ranks.first:
        store.set(f"question of {ranks.rank}", name)
        name = store.get(name).decode()
        store.set(f"{name} heard by {ranks.rank}", "")
        return PrefixStore(name, store)
    for rank in range(1, ranks.size):
        while not store.check([f"{name} heard by {rank}"]):
            question = store.get(f"question of {rank}").decode()
            store.set(question, name)
            time.sleep(0.01)
    return PrefixStore(name, store)


def _restarted() -> bool:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def _is_lost(error: RuntimeError) -> bool:
    """Whether communication failed, most often since another process has ended."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error)
