"""How near training comes to the machine's limit: each stage beside the reference as it stands and a matrix product.

    python benchmarks/training.py [--only loss ...] [--seconds 2] [--scratch FOLDER] [--out benchmarks/results]

On a GPU if there is one. On a CPU each measurement is a process of its own, so that its peak memory is its own. It
repeats the work for so many seconds, three times at least, and the median counts. The matrix product is that of the
loss's logits, [B V, D] with [D, Q], by PyTorch and as PrismRec takes it, of which the faster one counts; the loss and
its gradients are three of them. The reference's loss takes its users one by one, whose cost is the same for each: it is
measured for eight and multiplied, since all at once would not fit the memory. Steps take new batches as training does.
Prints tables, and with --out also writes them to training-<date>.md there.
"""

import argparse
import contextlib
import ctypes
import datetime as dt
import functools
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from prismrec.config import Config
from prismrec.data.loader import ExampleLoader
from prismrec.data.store import Store
from prismrec.data.targets import TrainBatch
from prismrec.loss import products
from prismrec.loss.contrastive import Candidates, Positives, contrastive_loss
from prismrec.loss.products import linear
from prismrec.model import attention, user_encoder
from prismrec.model.embeddings import HashedEmbedding
from prismrec.model.item_encoder import ItemEmbedding
from prismrec.model.layers import unit_norm
from prismrec.model.run import build_model
from prismrec.model.user_encoder import UserContext, UserEncoder
from prismrec.toml import load_config
from prismrec.train.hardware import keep_freed_memory
from prismrec.train.optimizers import Optimizers, RowwiseAdagrad
from prismrec.train.settings import size_tables
from prismrec.train.step import TrainStep
from saying import header, say
from train import generate
from training_port import PortedStep, broadcast_loss

REFERENCE = Path(__file__).parent / "accuracy" / "configs" / "reference.toml"
V, H, D = 8, 64, 128
BATCHES, QUEUES, LENGTHS = (128, 512, 1024), (1280, 4096, 16384), (50, 256)
STEPS = ((128, 1280, 50), (512, 4096, 50), (1024, 16384, 50), (128, 1280, 256))
ROWS = (1_000_000, 50_000_000)
EVENTS = 2_000_000
PORTED_USERS = 8
MIB = 1024**2
NUMBERS = ("float32", "bfloat16")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

Work = Callable[[], object]


def settings(batch: int, queue: int, length: int) -> Config:
    """The reference at these sizes."""
    return load_config(
        REFERENCE,
        [
            f"history.max_length={length}",
            f"model.embedding_dim={D}",
            f"model.num_heads={H}",
            f"model.num_interests={V}",
            f"loss.queue_size={queue}",
            f"train.batch_size={batch}",
        ],
    )


def product(batch: int, queue: int) -> Work:
    """The matrix product of all logits, by PyTorch."""
    users, items, logits = _normal(batch * V, D), _normal(queue, D), _normal(batch * V, queue)
    return lambda: torch.mm(users, items.T, out=logits)


def product_taken(batch: int, queue: int) -> Work:
    """The same as PrismRec takes it."""
    users, items = _normal(batch * V, D), _normal(queue, D)
    return lambda: linear(users, items)


def loss(batch: int, queue: int) -> Work:
    """The contrastive loss and its gradients to users, positives and negatives."""
    users, positive, negatives, prob = _vectors(batch, queue)
    ids = torch.arange(batch + queue, device=DEVICE)
    candidates = Candidates(negatives, ids[:queue], torch.rand(queue, 1, device=DEVICE) + 0.5)
    positives = Positives(positive, ids[queue:], ids[:batch], prob, torch.zeros_like(ids[:batch]))
    leaves = (users, positive, negatives)
    return lambda: torch.autograd.grad(contrastive_loss(users, positives, candidates), leaves)


def loss_ported(queue: int) -> Work:
    """The same of the reference, of some users."""
    users, positive, negatives, prob = _vectors(PORTED_USERS, queue)
    weights = torch.rand(1, queue, device=DEVICE).expand(PORTED_USERS, -1) + 0.5
    leaves = (users, positive, negatives)
    return lambda: torch.autograd.grad(broadcast_loss(users, positive, negatives, weights, prob), leaves)


def _vectors(batch: int, queue: int) -> tuple[torch.Tensor, ...]:
    users, positive, negatives = (
        unit_norm(_normal(*shape, D)).requires_grad_() for shape in ((batch, V), (batch,), (queue,))
    )
    return users, positive, negatives, torch.rand(batch, V, device=DEVICE).softmax(-1)


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, device=DEVICE)


def encoder(batch: int, length: int, bfloat16: bool) -> Work:
    """The user encoder and its gradients, from embedded clicks."""
    config = settings(batch, 1280, length)
    users = UserEncoder(config.model, length).to(DEVICE)
    clicks = [_normal(batch, length, D).requires_grad_() for _ in range(2)]
    number = torch.randint(1, 10_000, (batch, length), device=DEVICE)
    now = torch.full((batch,), 10_000, device=DEVICE)
    context = UserContext(number > 0, number > 0, number, number, number[..., None, :0], now, now)
    leaves = [*clicks, *users.parameters()]

    def work() -> object:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bfloat16):
            encoded = users(ItemEmbedding(*clicks), context)
        return torch.autograd.grad(encoded.interests.sum() + encoded.heads.sum(), leaves, allow_unused=True)

    return work


def tables(rows: int, ids: int) -> Work:
    """Look ids up in four tables of so many rows together, take the gradient and update."""
    embedding = HashedEmbedding([rows // 4 + i for i in range(4)], D).to(DEVICE)
    return _updating(embedding, RowwiseAdagrad(embedding.tables.parameters(), lr=0.1), ids)


def tables_ported(rows: int, ids: int) -> Work:
    """The same with dense gradients and Adam."""
    embedding = HashedEmbedding([rows // 4 + i for i in range(4)], D, sparse=False).to(DEVICE)
    return _updating(embedding, torch.optim.Adam(embedding.tables.parameters()), ids)


def _updating(embedding: HashedEmbedding, optimizer: torch.optim.Optimizer, ids: int) -> Work:
    def work() -> None:
        optimizer.zero_grad()
        embedding(torch.randint(1, 2**40, (ids,), device=DEVICE)).sum().backward()
        optimizer.step()

    return work


def loader(store: str, batch: int, length: int) -> Work:
    """Gather a batch."""
    batches = _batches(store, settings(batch, 1280, length))
    return lambda: next(batches)


def step(store: str, batch: int, queue: int, length: int, bfloat16: bool) -> Work:
    """A whole step, with gathering its batch."""
    opened = Store.open(Path(store))
    config = size_tables(settings(batch, queue, length), opened)
    model = build_model(config, opened.schema)
    train_step = TrainStep(config, opened, model).to(DEVICE)
    train_step.negatives.queue = torch.randint(1, len(opened.item_counts), (queue,), device=DEVICE)
    optimizers = Optimizers([model, train_step.objective], config.train, 1_000_000)
    batches = _batches(store, config)

    def work() -> None:
        value, _ = train_step(next(batches), bfloat16, with_metrics=False)
        optimizers.backward(value)
        float(optimizers.clip())
        optimizers.step()

    return work


def step_ported(store: str, batch: int, queue: int, length: int) -> Work:
    """The same of the reference."""
    opened = Store.open(Path(store))
    config = size_tables(settings(batch, queue, length), opened)
    ported, batches = PortedStep(config, opened).to(DEVICE), _batches(store, config)
    return lambda: ported(next(batches))


def step_ported_kept(store: str, batch: int, queue: int, length: int) -> Work:
    """The same in memory that is kept."""
    return step_ported(store, batch, queue, length)


def _batches(store: str, config: Config) -> Iterator[TrainBatch]:
    gathering = ExampleLoader(Store.open(Path(store)), config.history, config.train.batch_size, seed=0)
    return itertools.chain.from_iterable(map(gathering.batches, itertools.count()))


STAGES: dict[str, Callable[..., Work]] = {
    each.__name__: each
    for each in (
        product,
        product_taken,
        loss,
        loss_ported,
        encoder,
        tables,
        tables_ported,
        loader,
        step,
        step_ported,
        step_ported_kept,
    )
}


class Bench:
    """Measures stages; on a CPU each in a process of its own."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, stage: str, *arguments: int | str) -> tuple[float, float]:
        """Median seconds, and MiB that the work took beyond what stood before it."""
        if DEVICE.type == "cuda":
            return measure(self.seconds, stage, *arguments)
        command = [sys.executable, __file__, "--measure", json.dumps([self.seconds, stage, *arguments])]
        seconds, extra = json.loads(subprocess.run(command, stdout=-1, text=True, check=True).stdout)
        return seconds, extra


def measure(seconds: float, stage: str, *arguments: int | str) -> tuple[float, float]:
    """What `Bench` asks of a process."""
    with contextlib.ExitStack() as changes:
        if "_ported" in stage:  # it multiplies as PyTorch does, and padding too
            changes.enter_context(patch.object(products, "HAS_ONEDNN", False))
            for module in (attention, user_encoder):
                changes.enter_context(patch.object(module, "of_clicks", _of_padding_too))
        if not stage.endswith("_ported"):  # the port takes memory as it comes, but where it is said to keep it
            keep_freed_memory()
        return _measure(seconds, STAGES[stage], *arguments)


def _of_padding_too(layer: Callable[..., torch.Tensor], _mask: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
    return layer(*inputs)


def _measure(seconds: float, stage: Callable[..., Work], *arguments: int | str) -> tuple[float, float]:
    torch.manual_seed(0)
    work = stage(*arguments)
    before = _memory()
    work()
    taken: list[float] = []
    while sum(taken) < seconds or len(taken) < 3:
        _wait()
        started = time.perf_counter()
        work()
        _wait()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken), (_peak() - before) / MIB


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def _memory() -> int:
    """Bytes taken now, from which on the peak counts."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def table(*columns: str) -> list[str]:
    """The head of a table."""
    return [say("| " + " | ".join(columns) + " |"), say("| " + " | ".join("---:" for _ in columns) + " |")]


def row(*cells: Any) -> str:
    """A line of a table; numbers with three figures."""
    return say("| " + " | ".join(cell if isinstance(cell, str) else f"{cell:,.3g}" for cell in cells) + " |")


def report_loss(bench: Bench) -> list[str]:
    """The loss beside three matrix products and the reference's loss."""
    lines = table(
        *("B", "Q", "product, Gflop/s", "ours, Gflop/s", "loss, ms", "of the faster's rate, %", "extra MiB"),
        *("port, ms", "times"),
    )
    for batch, queue in itertools.product(BATCHES, QUEUES):
        products = [bench(stage, batch, queue)[0] for stage in ("product", "product_taken")]
        ours, extra = bench("loss", batch, queue)
        ported = bench("loss_ported", queue)[0] * batch / PORTED_USERS
        rates = [2 * batch * V * queue * D / each / 1e9 for each in products]
        cells = (*rates, ours * 1e3, 300 * min(products) / ours, extra, ported * 1e3, ported / ours)
        lines.append(row(f"{batch}", f"{queue}", *cells))
    return lines


def report_encoder(bench: Bench) -> list[str]:
    """The user encoder."""
    lines = table("B", "T", "numbers", "encoder, ms", "users/s", "extra MiB")
    for batch, length, bfloat16 in itertools.product(BATCHES, LENGTHS, (False, True)):
        seconds, extra = bench("encoder", batch, length, bfloat16)
        lines.append(row(f"{batch}", f"{length}", NUMBERS[bfloat16], seconds * 1e3, batch / seconds, extra))
    return lines


def report_tables(bench: Bench) -> list[str]:
    """Tables of different sizes."""
    ids = 8192
    lines = table("rows", "ids", "lookup and update, ms", "dense Adam, ms")
    for rows in ROWS:
        ported = bench("tables_ported", rows, ids)[0] * 1e3 if rows == ROWS[0] else "does not fit"
        lines.append(row(f"{rows:,}", f"{ids:,}", bench("tables", rows, ids)[0] * 1e3, ported))
    return lines


def report_step(bench: Bench, store: str) -> list[str]:
    """Whole steps, and gathering their batches."""
    lines = table(
        *("B", "Q", "T", "numbers", "step, ms", "examples/s", "extra MiB", "port, ms", "times"),
        *("port that keeps memory, ms", "times", "loader, examples/s", "of a step, %"),
    )
    for batch, queue, length in STEPS:
        gathering = bench("loader", store, batch, length)[0]
        fits = batch * queue < 1e7
        ports = [bench(f"step_ported{kind}", store, batch, queue, length)[0] for kind in ("", "_kept") if fits]
        for bfloat16 in (False, True):
            ours, extra = bench("step", store, batch, queue, length, bfloat16)
            beside = [cell for port in ports for cell in (port * 1e3, port / ours)]
            cells = (ours * 1e3, batch / ours, extra, *(beside or ("",) * 4))
            loading = (batch / gathering, 100 * gathering / ours)
            lines.append(row(f"{batch}", f"{queue}", f"{length}", NUMBERS[bfloat16], *cells, *loading))
    return lines


REPORTS = ("loss", "encoder", "tables", "step")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=REPORTS, default=list(REPORTS))
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--scratch", type=Path, help="folder for the generated data; the system's by default")
    parser.add_argument("--out", type=Path, help="folder to write the tables to")
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    lines = [header("training", f"{torch.get_num_threads()} threads"), "", f"V = {V}, H = {H}, D = {D}"]
    say("\n".join(lines))
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        reports: dict[str, Callable[[Bench], list[str]]] = {
            "loss": report_loss,
            "encoder": report_encoder,
            "tables": report_tables,
        }
        if "step" in arguments.only:
            store = Path(scratch) / "store"
            generate(store, EVENTS)
            reports["step"] = functools.partial(report_step, store=str(store))
        for name in arguments.only:
            lines += ["", say(f"\n## {name}\n").strip(), "", *reports[name](Bench(arguments.seconds))]
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        path = arguments.out / f"training-{dt.date.today().isoformat()}.md"
        path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
