"""The ONNX item encoder beside PyTorch, for every way in which features become tables."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from prismrec.config import Config, HashingConfig, ModelConfig
from prismrec.data.schema import Schema
from prismrec.data.store import Store
from prismrec.errors import ArtifactError
from prismrec.export.item_encoder import OnnxItemEncoder
from prismrec.export.onnx import check_item_encoder, export_item_encoder
from prismrec.model.multi_interest import MultiInterestModel, resolve_primes

MakeModel = Callable[..., tuple[Config, MultiInterestModel]]
NAMES = ("item_id", "category", "tags", "tags", "tags")
VARIANTS: dict[str, tuple[tuple[str, ...], int, str]] = {
    "ids alone": (NAMES[:1], 4, "unit"),
    "lists, several hashes": (NAMES, 4, "unit"),
    "lists, one table, free": (NAMES, 1, "free"),
}


def _model(names: tuple[str, ...], num_hashes: int, item_norm: str) -> MultiInterestModel:
    torch.manual_seed(0)
    hashing = resolve_primes(HashingConfig(num_hashes=num_hashes), dict.fromkeys(names, 50))
    config = ModelConfig.model_validate({"embedding_dim": 16, "hashing": hashing, "item_norm": item_norm})
    return MultiInterestModel(config, Schema(item_features=names), 6).eval()


@pytest.fixture(scope="module", params=VARIANTS)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[MultiInterestModel, Path]:
    model, path = _model(*VARIANTS[request.param]), tmp_path_factory.mktemp("onnx") / "item_encoder.onnx"
    export_item_encoder(model, path)
    return model, path


@pytest.mark.parametrize("num_items", [0, 1, 3, 500])
def test_equals_pytorch(exported: tuple[MultiInterestModel, Path], num_items: int) -> None:
    model, path = exported
    rng = np.random.default_rng(num_items)
    features = rng.integers(1, 2**63 - 1, (num_items, len(model.schema.item_features)))
    features[rng.random(features.shape) < 0.3] = 0  # absent, an item's id included
    expected = model.encode_items(torch.from_numpy(features)).detach().numpy()
    found = OnnxItemEncoder(path).encode(features)
    assert (found.shape, found.dtype) == ((num_items, 16), np.float32)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_the_file_holds_the_item_tower_alone(exported: tuple[MultiInterestModel, Path]) -> None:
    model, path = exported
    content = path.read_bytes()
    assert b".py" not in content
    assert len(content) < sum(parameter.nbytes for parameter in model.items.parameters()) + 30_000


def test_batches_do_not_change_the_result(
    exported: tuple[MultiInterestModel, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = exported
    encoder = OnnxItemEncoder(path)
    features = np.random.default_rng(0).integers(1, 2**63 - 1, (7, len(model.schema.item_features)))
    whole = encoder.encode(features)
    monkeypatch.setattr("prismrec.export.item_encoder._ITEMS_PER_BATCH", 3)
    np.testing.assert_allclose(encoder.encode(features), whole, rtol=0, atol=1e-7)


def test_a_model_that_differs_is_refused(bundle: Path, make_model: MakeModel, store: Store) -> None:
    encoder, (_, model) = OnnxItemEncoder(bundle / "item_encoder.onnx"), make_model()
    features = np.array(store.item_features[1:])
    expected = model.encode_items(torch.from_numpy(features)).detach().numpy()
    assert 0 <= check_item_encoder(encoder, features, expected) <= 1e-5
    with pytest.raises(ArtifactError, match=r"ONNX item encoder: expected vectors within 1e-05 .* on 40 items, found"):
        check_item_encoder(encoder, features, expected + 0.001)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "item_encoder.onnx").write_bytes(b"not a graph")
    with pytest.raises(ArtifactError, match=r"item_encoder\.onnx: expected an ONNX item encoder"):
        OnnxItemEncoder(tmp_path / "item_encoder.onnx")
