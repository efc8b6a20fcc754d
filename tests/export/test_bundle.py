import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from prismrec.artifact import read_manifest, write_manifest
from prismrec.data.history import stored_histories
from prismrec.data.store import Store
from prismrec.engine import LocalEngine
from prismrec.errors import ArtifactError, SearchIndexError
from prismrec.export import vector_parts
from prismrec.export.bundle import export
from prismrec.export.reader import open_bundle
from prismrec.export.vector_parts import write_vector_parts
from prismrec.export.vectors import write_item_vectors
from prismrec.model.encode import encode_items, encode_users
from prismrec.model.run import load_run


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def test_files(bundle: Path) -> None:
    assert {path.name for path in bundle.iterdir()} == {
        "manifest.json",
        "config.toml",
        "model.safetensors",
        "user_encoder.onnx",
        "item_encoder.onnx",
        "item_vectors.parquet",
        "user_vectors.parquet",
        "index.faiss",
        "store",
    }
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_manifest(bundle: Path, run: Path, store: Store) -> None:
    manifest = read_manifest(bundle, "bundle")
    assert manifest["counts"] == {"users": store.num_users, "items": 40, "events": store.num_events}
    assert manifest["index"]["kind"] == "flat"
    assert manifest["settings"] == load_run(run).config.model_dump(mode="json")
    assert manifest["schema"]["context_features"] == ["shop"]
    assert manifest["onnx"]["max_difference"] <= 1e-5
    assert manifest["onnx"]["users_compared"] == store.num_users
    assert manifest["onnx"]["max_item_difference"] <= 1e-5
    assert manifest["onnx"]["items_compared"] == 40


def test_item_vectors_are_the_models_under_original_ids(bundle: Path, run: Path, store: Store) -> None:
    table = pq.read_table(bundle / "item_vectors.parquet")
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 16)
    assert table["item_id"].to_pylist() == store.item_ids.to_list()
    vectors = np.array(table["vector"].to_pylist(), np.float32)
    np.testing.assert_array_equal(vectors, encode_items(load_run(run).model, store))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_user_vectors_are_the_models_under_original_ids(bundle: Path, run: Path, store: Store) -> None:
    table = pl.read_parquet(bundle / "user_vectors.parquet")
    assert table.schema == {"user_id": pl.Int64, "vectors": pl.Array(pl.Float32, (4, 16))}
    assert table["user_id"].to_list() == store.user_ids.to_list()
    trained = load_run(run)
    histories = stored_histories(store, np.arange(store.num_users), store.manifest["max_time"], trained.config.history)
    expected = encode_users(trained.model, histories, store.item_features).vectors
    np.testing.assert_allclose(table["vectors"].to_numpy(), expected, rtol=0, atol=1e-5)


def test_vectors_in_parts_are_those_of_the_bundle(
    bundle: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made again, whole parts stay; a damaged one is replaced."""
    monkeypatch.setattr(vector_parts, "_USERS_PER_PART", 16)
    monkeypatch.setattr(vector_parts, "_ITEMS_PER_PART", 25)
    export(run, tmp_path / "bundle", vectors=str(tmp_path / "vectors"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "vectors").glob("*/part-*")}
    assert len(before) == 2 + 2  # 40 items, 30 users
    damaged = tmp_path / "vectors" / "users" / "part-00001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    write_vector_parts(tmp_path / "bundle", f"{tmp_path}/vectors", LocalEngine(), Console(quiet=True))
    assert {path for path in before if path.stat().st_mtime_ns != before[path]} == {damaged}
    for name in ("item", "user"):
        whole = pl.read_parquet(bundle / f"{name}_vectors.parquet")
        found = pl.read_parquet(tmp_path / "vectors" / f"{name}s" / "part-*.parquet")
        assert found.drop(cs.array()).equals(whole.drop(cs.array()))
        assert found.schema == whole.schema
        np.testing.assert_allclose(
            *(frame.select(cs.array()).to_series().to_numpy() for frame in (found, whole)), atol=1e-6
        )


def test_index_finds_the_item_vectors(bundle: Path) -> None:
    opened = open_bundle(bundle)
    vectors = pl.read_parquet(bundle / "item_vectors.parquet")["vector"].to_numpy()
    scores, rows = opened.index.search(vectors, 1)
    np.testing.assert_array_equal(rows[:, 0], np.arange(1, 41))
    np.testing.assert_allclose(scores[:, 0], 1, atol=1e-5)


def test_exporting_again_replaces_the_bundle(run: Path, copy: Path) -> None:
    export(run, copy)
    assert not (copy / "user_vectors.parquet").exists()
    assert open_bundle(copy).store.num_items == 40


def test_a_failed_export_leaves_nothing_behind(run: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(run, tmp_path / "run"))
    (damaged / "model-0.safetensors").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"model-0\.safetensors: does not match its checksum"):
        export(damaged, tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_something_else_is_not_overwritten(run: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="expected a new path or an earlier bundle"):
        export(run, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["index.faiss", "user_encoder.onnx", "item_vectors.parquet", "store/items.parquet", "store/manifest.json"]
)
def test_a_damaged_or_missing_file_is_named(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=rf"{name}: does not match its checksum"):
        open_bundle(copy)
    (copy / name).unlink()
    with pytest.raises(ArtifactError, match=rf"{name}: expected by the bundle's manifest, but missing"):
        open_bundle(copy)


def test_a_run_is_not_a_bundle(run: Path) -> None:
    with pytest.raises(ArtifactError, match="expected a bundle of format 2, found run of 2"):
        open_bundle(run)


def test_parts_of_different_bundles_do_not_pass(copy: Path, store: Store) -> None:
    # A new manifest whose checksums are right: only the counts give the mixture away.
    manifest = json.loads((copy / "manifest.json").read_text())
    content = {key: manifest[key] for key in ("settings", "schema", "counts", "index", "onnx")}
    write_item_vectors(copy / "item_vectors.parquet", store.item_ids[:3], np.ones((3, 16), np.float32))
    write_manifest(copy, "bundle", **content)
    with pytest.raises(ArtifactError, match="expected 40 item vectors, found 3"):
        open_bundle(copy)
    write_manifest(copy, "bundle", **{**content, "index": {**content["index"], "num_vectors": 41}})
    with pytest.raises(SearchIndexError, match="'num_vectors': 41"):
        open_bundle(copy)


def test_the_popularity_dial_is_one_more_dimension(run: Path, store: Store, tmp_path: Path) -> None:
    opened = open_bundle(export(run, tmp_path / "bundle", user_vectors=True, popularity=0.5))
    assert opened.config.popularity == 0.5
    items = np.array(pq.read_table(opened.path / "item_vectors.parquet")["vector"].to_pylist())
    plain = encode_items(load_run(run).model, store)
    counts = store.item_counts[1:] + 1
    np.testing.assert_allclose(items[:, :-1], plain, atol=1e-6)
    np.testing.assert_allclose(items[:, -1], 0.035 * np.log(counts / counts.mean()), rtol=1e-5)
    users = np.array(pq.read_table(opened.path / "user_vectors.parquet")["vectors"].to_pylist())
    assert (users[..., -1] == 1).all()
    _, rows = opened.index.search(users[0].astype(np.float32), 3)
    np.testing.assert_array_equal(rows, np.argsort(-(users[0] @ items.T), axis=1)[:, :3] + 1)
