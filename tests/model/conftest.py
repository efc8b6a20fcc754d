"""Small untrained models, and histories to feed them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from prismrec.config import HashingConfig, ModelConfig
from prismrec.data.schema import Schema
from prismrec.model.layers import UnitLayerNorm
from prismrec.model.multi_interest import MultiInterestModel, resolve_primes
from prismrec.model.sequence import RelativeBias

SCHEMA = Schema(item_features=("item_id", "category"), context_features=("shop",), has_dwell=True)
DISTINCT = {"item_id": 50, "category": 7, "shop": 5, "user_id": 20}
Inputs = dict[str, Tensor]


@pytest.fixture
def make_model() -> Callable[..., MultiInterestModel]:
    """Build a pooled model of 4 heads and 2 vectors; arguments are settings, `length` that of the history."""

    def build(length: int = 6, popularity: float = 0.0, **settings: object) -> MultiInterestModel:
        torch.manual_seed(0)
        hashing = resolve_primes(HashingConfig(num_hashes=2), DISTINCT)
        defaults = {
            "embedding_dim": 8,
            "num_heads": 4,
            "num_interests": 2,
            "hashing": hashing,
            "encoder": {"kind": "none"},
        }
        return MultiInterestModel(ModelConfig.model_validate(defaults | settings), SCHEMA, length, popularity).eval()

    return build


@pytest.fixture
def taught(make_model: Callable[..., MultiInterestModel]) -> Callable[..., MultiInterestModel]:
    """Models whose every weight differs from its initial zero or one, as after training."""

    def build(**settings: Any) -> MultiInterestModel:
        model = make_model(**settings)
        for module in model.modules():
            if isinstance(module, UnitLayerNorm):
                torch.nn.init.normal_(module.beta, std=0.5)
            if isinstance(module, RelativeBias):
                torch.nn.init.normal_(module.distance)
                torch.nn.init.normal_(module.elapsed)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
        return model

    return build


@pytest.fixture
def make_inputs() -> Callable[..., Inputs]:
    """Histories of the given lengths, newest first and padded; the newest two events are recent."""

    def build(lengths: list[int], length: int = 6, seed: int = 0) -> Inputs:
        generator = torch.Generator().manual_seed(seed)
        shape, now = (len(lengths), length), 1_600_000_000
        mask = torch.arange(length) < torch.tensor(lengths)[:, None]

        def some(high: int, *more: int) -> Tensor:
            values = torch.randint(1, high, (*shape, *more), generator=generator)
            return torch.where(mask.view(*shape, *(1 for _ in more)), values, 0)

        return {
            "item": some(50, 2),
            "time": torch.where(mask, now - some(1_000_000), 0),
            "dwell": some(600),
            "recent": mask & (torch.arange(length) < 2),
            "context": some(5, 1),
            "now": torch.full((len(lengths),), now),
            "user": torch.arange(1, len(lengths) + 1),
        }

    return build
