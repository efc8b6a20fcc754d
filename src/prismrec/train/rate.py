"""How fast one process trains on this machine: some steps of the training that is planned, whose result is dropped."""

import statistics
import time
from itertools import islice

import torch
from rich.console import Console
from rich.progress import track

from prismrec.config import Config
from prismrec.data.loader import ExampleLoader
from prismrec.data.store import Store
from prismrec.data.windows import WindowLoader
from prismrec.errors import TrainingError
from prismrec.model.run import build_model
from prismrec.train.distributed import choose_device
from prismrec.train.hardware import keep_freed_memory, trains_in_bfloat16
from prismrec.train.optimizers import Optimizers
from prismrec.train.settings import size_tables
from prismrec.train.step import TrainStep

LARGEST_TABLE = 1_000_000
"""Rows; tables of more are cut for this, since they need not fit here and rows of larger ones cost little more."""
_WARM_UP = 2


def measure_rate(store: Store, config: Config, steps: int, ranks: int = 1) -> float:
    """Examples a second of one process, by the median of some steps after the first two.

    Args:
        store: what is trained on.
        config: the settings.
        steps: how many count.
        ranks: of how many the process is to be one; it takes its part of every batch.

    Raises:
        TrainingError: an epoch has fewer steps.
        ConfigError: the device is not there.
    """
    config = _with_small_tables(size_tables(config, store))
    settings = config.train
    device = choose_device(settings.device)
    keep_freed_memory()
    torch.manual_seed(settings.seed)
    model = build_model(config, store.schema)
    step = TrainStep(config, store, model).to(device)
    bfloat16 = trains_in_bfloat16(settings.precision, device, config.model.embedding_dim)
    optimizers = Optimizers([model, step.objective], settings, _WARM_UP + steps)
    kind = ExampleLoader if config.model.encoder.kind == "none" else WindowLoader
    part = (0, ranks)
    loader = kind(store, config.history, settings.batch_size, settings.seed, new_only=config.exclude_seen, part=part)
    if loader.steps_per_epoch < _WARM_UP + steps:
        raise TrainingError(
            f"--measure {steps}: expected fewer steps, an epoch of this store has {loader.steps_per_epoch}"
        )
    examples, seconds, started = [], [], time.perf_counter()
    batches = islice(loader.batches(0), _WARM_UP + steps)
    for batch in track(batches, "measuring", _WARM_UP + steps, transient=True, console=Console(stderr=True)):
        loss, _ = step(batch, bfloat16, with_metrics=False)
        optimizers.backward(loss)
        float(optimizers.clip())  # waits for the device, as training does
        optimizers.step()
        examples.append(len(batch.target))
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    return statistics.mean(examples[_WARM_UP:]) / statistics.median(seconds[_WARM_UP:])


def _with_small_tables(config: Config) -> Config:
    hashing = config.model.hashing
    primes = {name: tuple(min(prime, LARGEST_TABLE) for prime in each) for name, each in hashing.primes.items()}
    hashing = hashing.model_copy(update={"primes": primes})
    return config.model_copy(update={"model": config.model.model_copy(update={"hashing": hashing})})
