import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import quantize_dynamic

from prismrec.config import Config
from prismrec.data.history import HistoryBatch, stored_histories
from prismrec.data.store import Store
from prismrec.errors import ArtifactError, ConfigError
from prismrec.export.onnx import check_user_encoder, export_user_encoder
from prismrec.export.user_encoder import OnnxUserEncoder
from prismrec.model.encode import encode_users
from prismrec.model.multi_interest import MultiInterestModel

MakeModel = Callable[..., tuple[Config, MultiInterestModel]]
POOLED: dict[str, object] = {"encoder": {"kind": "none"}}
VARIANTS: dict[str, dict[str, object]] = {
    "pooled": POOLED,
    "query, top vectors": {**POOLED, "attention": "query", "top_vectors": 2},
    "hard, per path, equalised, user id": {
        **POOLED,
        "routing": "hard",
        "per_path_dense": True,
        "equalize_heads": True,
        "user_id": True,
    },
    "straight through, position bias, unit norm": {
        **POOLED,
        "routing": "straight_through",
        "position_bias": True,
        "layer_norm": "unit",
    },
    "one vector, no prior": {**POOLED, "num_interests": 1, "head_prior": False, "layer_norm": "standard"},
    "transformer, user id, popularity": {
        "encoder": {"kind": "transformer", "num_layers": 1},
        "user_id": True,
        "popularity": 0.5,
    },
    "hstu, adaptive, popularity": {
        "encoder": {"kind": "hstu", "num_layers": 1},
        "adaptive_interests": True,
        "popularity": 0.5,
    },
}


def _histories(lengths: list[int], max_length: int, num_items: int, num_context: int) -> HistoryBatch:
    """Random histories of the given lengths with ids over the whole range of 63-bit keys."""
    rng = np.random.default_rng(len(lengths))
    shape = (len(lengths), max_length)
    mask = np.arange(max_length) < np.array(lengths, dtype=int)[:, None]
    return HistoryBatch(
        item=np.where(mask, rng.integers(1, num_items + 1, shape), 0),
        time=np.where(mask, rng.integers(1_599_000_000, 1_600_000_000, shape), 0),
        dwell=np.where(mask, rng.integers(0, 1000, shape), 0),
        recent=mask & (np.arange(max_length) < 3),
        context=np.where(mask[..., None], rng.integers(1, 2**63 - 1, (*shape, num_context)), 0),
        now=np.full(len(lengths), 1_600_000_000),
        user=rng.integers(0, 2**63 - 1, len(lengths)),
    )


BATCHES = {
    "one user": [4],
    "one empty history": [0],
    "all empty": [0, 0, 0, 0],
    "full and over": [6, 6],
    "mixed": [0, 1, 2, 3, 4, 5, 6] * 10,
    "no users": [],
}


@pytest.fixture(scope="module", params=VARIANTS)
def exported(
    request: pytest.FixtureRequest, make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory
) -> tuple[MultiInterestModel, OnnxUserEncoder]:
    _, model = make_model(**VARIANTS[request.param])
    for name, parameter in model.named_parameters():
        if not parameter.any():  # what starts at zero would hide a difference
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(len(name)))
    path = tmp_path_factory.mktemp("onnx") / "user_encoder.onnx"
    export_user_encoder(model, path)
    return model, OnnxUserEncoder(path)


@pytest.mark.parametrize("lengths", BATCHES.values(), ids=BATCHES)
def test_equals_pytorch(exported: tuple[MultiInterestModel, OnnxUserEncoder], store: Store, lengths: list[int]) -> None:
    model, encoder = exported
    # keys next to 2**63 must survive the moduli as well as small ones do
    features = np.random.default_rng(0).integers(2**62, 2**63 - 1, store.item_features.shape)
    features[0], features[1], features[2] = 0, 2**63 - 1, 1
    batch = _histories(lengths, 6, store.num_items, 1)
    found, expected = encoder.encode(batch, features), encode_users(model, batch, features)
    assert found._fields == ("vectors", "interest_weights", "head_usage", "interest_shares")
    # without events all vectors tie, and which of them are the top ones is anyone's choice
    decided = slice(None) if model.config.top_vectors is None else batch.item[:, 0] != 0
    for name in found._fields:
        np.testing.assert_allclose(
            getattr(found, name)[decided], getattr(expected, name)[decided], rtol=0, atol=1e-5, err_msg=name
        )
    assert np.isfinite(found.vectors).all()


def test_a_graph_of_other_outputs_is_refused(bundle: Path, tmp_path: Path) -> None:
    graph = onnx.load(bundle / "user_encoder.onnx")
    del graph.graph.output[-1]
    onnx.save(graph, tmp_path / "old.onnx")
    with pytest.raises(
        ArtifactError, match="interest_shares, found vectors, interest_weights, head_usage; export again"
    ):
        OnnxUserEncoder(tmp_path / "old.onnx")


def test_equals_pytorch_at_powers_of_two(exported: tuple[MultiInterestModel, OnnxUserEncoder], store: Store) -> None:
    """Where buckets of elapsed time begin and end, and numbers of vectors: a logarithm may decide by its rounding."""
    model, encoder = exported
    batch = _histories([1, 2, 4] * 8, 6, store.num_items, 1)
    ago = np.maximum(2 ** np.arange(24)[:, None] - 1 - np.arange(6) % 2, 0)
    batch.time[:] = np.where(batch.item != 0, batch.now[:, None] - ago, 0)
    found, expected = encoder.encode(batch, store.item_features), encode_users(model, batch, store.item_features)
    np.testing.assert_allclose(found.vectors, expected.vectors, rtol=0, atol=1e-5)
    vectors = found.vectors.any(axis=2).sum(axis=1)
    assert vectors.tolist() == ([1, 2, 3] * 8 if model.config.adaptive_interests else [vectors[0]] * 24)


def test_the_file_is_small_and_names_no_source_file(bundle: Path, make_model: MakeModel) -> None:
    content = (bundle / "user_encoder.onnx").read_bytes()
    assert b".py" not in content
    assert len(content) < sum(parameter.nbytes for parameter in make_model()[1].parameters()) + 200_000


def test_a_model_that_differs_is_refused(bundle: Path, make_model: MakeModel, store: Store) -> None:
    config, model = make_model()
    encoder = OnnxUserEncoder(bundle / "user_encoder.onnx")
    batch = stored_histories(store, np.arange(store.num_users), 1_600_500_000, config.history)
    interests, difference = check_user_encoder(model, encoder, batch, store.item_features)
    assert interests.shape == (store.num_users, 4, 16)
    assert 0 <= difference <= 1e-5
    with torch.no_grad():
        model.users.interests.output.bias += 0.1
    with pytest.raises(ArtifactError, match=r"expected vectors within 1e-05 of PyTorch's on \d+ users, found"):
        check_user_encoder(model, encoder, batch, store.item_features)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "user_encoder.onnx").write_bytes(b"not a graph")
    with pytest.raises(ArtifactError, match=r"user_encoder\.onnx: expected an ONNX user encoder"):
        OnnxUserEncoder(tmp_path / "user_encoder.onnx")


@pytest.mark.parametrize("kind", ["transformer", "hstu"])
def test_in_8_bits_the_blocks_are_quantised_and_vectors_stay_close(
    kind: str, make_model: MakeModel, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quantise(given: Path, out: Path, **settings: Any) -> None:
        shutil.copyfile(given, tmp_path / "exact")
        quantize_dynamic(given, out, **settings)

    monkeypatch.setattr("prismrec.export.onnx.quantize_dynamic", quantise)
    _, model = make_model(encoder={"kind": kind, "num_layers": 1})
    export_user_encoder(model, tmp_path / "int8", int8=True)
    operations = [node.op_type for node in onnx.load(tmp_path / "int8").graph.node]
    quantised = {"transformer": 4, "hstu": 2}[kind]  # the products with weights in a block
    assert operations.count("MatMulInteger") == quantised
    before = [node.op_type for node in onnx.load(tmp_path / "exact").graph.node]
    assert operations.count("MatMul") == before.count("MatMul") - quantised
    batch = _histories([0, 3, 6] * 20, 6, store.num_items, 1)
    encoder = OnnxUserEncoder(tmp_path / "int8")
    found, difference = check_user_encoder(model, encoder, batch, store.item_features, int8=True)
    expected = encode_users(model, batch, store.item_features).vectors
    assert 1e-5 < difference < 0.1
    assert (found * expected).sum(axis=2).mean() > 0.999
    with pytest.raises(ArtifactError, match="expected vectors within 1e-05"):
        check_user_encoder(model, encoder, batch, store.item_features)
    with torch.no_grad():
        model.users.interests.output.bias += 1.0
    with pytest.raises(ArtifactError, match=r"in 8 bits: expected a mean cosine of at least 0\.999 .* --int8"):
        check_user_encoder(model, encoder, batch, store.item_features, int8=True)


def test_without_a_sequence_encoder_there_is_nothing_to_quantise(make_model: MakeModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"int8: expected a model with a sequence encoder.*encoder\.kind=none"):
        export_user_encoder(make_model(**POOLED)[1], tmp_path / "user_encoder.onnx", int8=True)
    assert not any(tmp_path.iterdir())
