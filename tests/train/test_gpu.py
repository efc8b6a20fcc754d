"""A GPU trains as the processor does. These run where there is one."""

from collections.abc import Callable
from copy import deepcopy
from itertools import islice

import pytest
import torch

from prismrec.config import Config
from prismrec.data.loader import ExampleLoader
from prismrec.data.store import Store
from prismrec.data.windows import WindowLoader
from prismrec.model.run import build_model
from prismrec.train.optimizers import Optimizers
from prismrec.train.settings import size_tables
from prismrec.train.step import TrainStep

CASES: dict[str, tuple[str, ...]] = {
    "reference": (),
    "hard negatives": ("loss.hard_queue_size=32",),
    "maximum": ("loss.reading=maximum",),
    "transformer": ("model.encoder.kind=transformer", "model.encoder.dropout=0"),
    "hstu": ("model.encoder.kind=hstu", "model.encoder.dropout=0", "loss.reading=log_sum_exp"),
}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("case", CASES)
def test_steps_on_a_gpu_are_those_of_the_processor(store: Store, make_config: Callable[..., Config], case: str) -> None:
    losses = train_on("cuda", store, make_config(*CASES[case]))
    torch.testing.assert_close(losses, train_on("cpu", store, make_config(*CASES[case])), rtol=1e-3, atol=1e-4)


def train_on(device: str, store: Store, config: Config, steps: int = 5) -> torch.Tensor:
    """Losses of some steps from the same weights."""
    config = size_tables(config, store)
    torch.manual_seed(0)
    model = build_model(config, store.schema)
    step = deepcopy(TrainStep(config, store, model)).to(device)
    optimizers = Optimizers([step.model, step.objective], config.train, steps)
    kind = ExampleLoader if config.model.encoder.kind == "none" else WindowLoader
    losses = []
    for batch in islice(kind(store, config.history, config.train.batch_size, seed=0).batches(0), steps):
        loss, _ = step(batch)
        optimizers.backward(loss)
        optimizers.clip()
        optimizers.step()
        losses.append(loss.detach().cpu())
    return torch.stack(losses)
