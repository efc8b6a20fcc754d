"""Items added to a bundle: placed by their features, recommended, seen in histories; what cannot be is refused."""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from prismrec.artifact import read_manifest, write_manifest
from prismrec.config import Config, HashingConfig, ModelConfig, PrepareConfig
from prismrec.data.prepare import prepare
from prismrec.data.schema import stable_keys
from prismrec.errors import ArtifactError, DataError
from prismrec.export.bundle import export
from prismrec.export.extend import extend
from prismrec.export.new_items import read_new_items
from prismrec.export.reader import open_bundle
from prismrec.model.multi_interest import resolve_primes
from prismrec.model.run import build_model, save_run
from prismrec.serve.recommender import Recommender

CATEGORIES, START = 4, 1_600_000_000
ITEMS = pl.DataFrame(
    {
        "sku": [f"item {i}" for i in range(24)],
        "category": [f"category {i % CATEGORIES}" for i in range(24)],
        "shelf": pl.Series([i % 3 for i in range(24)], dtype=pl.Int16),
        "tags": [["new", f"tag {i % 5}"] if i % 2 else [] for i in range(24)],
        "title": [f"Title {i}" for i in range(24)],
    }
)
# item 7 again, but for its id; a category alone; a category that nobody knows beside a shelf that all know
NEW = pl.DataFrame(
    {
        "sku": ["twin of 7", "new 1", "new 2"],
        "category": ["category 3", "category 2", "category 99"],
        "shelf": [1, None, 2],
        "tags": [["new", "tag 2"], None, []],
        "title": ["Twin", None, "Two"],
    }
)


def _events() -> pl.DataFrame:
    """User 100 + c buys four items of category c and no others."""
    rows = [(100 + c, f"item {c + CATEGORIES * i}", START + 60 * i) for c in range(CATEGORIES) for i in range(4)]
    return pl.DataFrame(rows, ["user_id", "sku", "timestamp"], orient="row")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model by hand: categories say nearly everything, and the id of item 7 nothing."""
    folder = tmp_path_factory.mktemp("run")
    store = prepare(_events(), ITEMS, folder / "store", PrepareConfig(columns={"item": "sku"}))
    torch.manual_seed(0)
    hashing = resolve_primes(
        HashingConfig(rows_per_id=4), {"item_id": 24, "category": CATEGORIES, "shelf": 3, "tags": 6}
    )
    config = Config(model=ModelConfig(embedding_dim=32, hashing=hashing))
    model = build_model(config, store.schema).eval()
    item_id, category, *_ = model.items.embeddings
    for table in category.tables:
        table.weight.data *= 5
    for table, prime in zip(item_id.tables, item_id.primes, strict=True):
        table.weight.data[int(store.items["key"][7]) % prime + 1] = 0
    save_run(folder / "run", config, store, model.state_dict())
    return folder / "run"


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run, tmp_path_factory.mktemp("bundle") / "bundle", user_vectors=True)


@pytest.fixture(scope="module")
def extended(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extend(bundle, NEW, tmp_path_factory.mktemp("extended") / "extended")


@pytest.fixture(scope="module")
def recommender(extended: Path) -> Recommender:
    return Recommender.open(extended)


def _vectors(bundle: Path) -> np.ndarray:
    return pl.read_parquet(bundle / "item_vectors.parquet")["vector"].to_numpy()


def _checksums(directory: Path) -> dict[str, str]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _given(*items: str, user_id: int = 7) -> pl.DataFrame:
    return pl.DataFrame(
        {"user_id": user_id, "item_id": items, "timestamp": [START + 1000 + place for place in range(len(items))]}
    )


def test_an_item_with_the_features_of_another_without_id_has_its_vector(extended: Path) -> None:
    vectors = _vectors(extended)
    np.testing.assert_allclose(vectors[24], vectors[7], rtol=0, atol=1e-6)
    others = np.delete(vectors[:24], 7, axis=0)  # all of which have an id
    assert np.abs(others - vectors[24]).max(axis=1).min() > 0.01


def test_the_index_holds_the_vectors_old_and_new(bundle: Path, extended: Path) -> None:
    opened, vectors = open_bundle(extended), _vectors(extended)
    np.testing.assert_array_equal(vectors[:24], _vectors(bundle))
    np.testing.assert_array_equal(opened.index.vectors(np.arange(1, 28)), vectors)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_the_catalogue_by_hand(bundle: Path, extended: Path) -> None:
    old, new = open_bundle(bundle).store, open_bundle(extended).store
    assert new.items[:24].equals(old.items)
    assert new.items.schema == old.items.schema
    assert new.items["item_id"][24:].to_list() == ["twin of 7", "new 1", "new 2"]
    assert new.items["key"][24:].to_list() == stable_keys(["twin of 7", "new 1", "new 2"]).tolist()
    assert new.items["title"][24:].to_list() == ["Twin", None, "Two"]
    three, two, fresh, tag = stable_keys(["category 3", "category 2", "new", "tag 2"]).tolist()
    assert new.schema.item_features == ("item_id", "category", "shelf", "tags", "tags")
    np.testing.assert_array_equal(new.item_features[:25], old.item_features)
    assert new.item_features[25:].tolist() == [[0, three, 2, fresh, tag], [0, two, 0, 0, 0], [0, 0, 3, 0, 0]]
    assert new.item_counts.tolist() == [*old.item_counts.tolist(), 0, 0, 0]


def test_the_manifests_by_hand(bundle: Path, extended: Path) -> None:
    old, new = read_manifest(bundle, "bundle"), read_manifest(extended, "bundle")
    assert new["counts"] == {"users": 4, "items": 27, "events": 16}
    assert new["index"] == {**old["index"], "num_vectors": 27}
    digest = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    assert new["extended"] == {"items": 3, "from": digest}
    assert {key: new[key] for key in ("settings", "schema", "onnx")} == {
        key: old[key] for key in ("settings", "schema", "onnx")
    }
    store, before = read_manifest(extended / "store", "store"), read_manifest(bundle / "store", "store")
    assert store["counts"] == {**before["counts"], "items": 27}
    assert store.keys() == before.keys()


def test_files_that_need_not_change_do_not(bundle: Path, extended: Path) -> None:
    before, after = _checksums(bundle), _checksums(extended)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {
        "manifest.json",
        "index.faiss",
        "item_vectors.parquet",
        "store/manifest.json",
        "store/items.parquet",
        "store/item_features.npy",
    }
    assert [path.name for path in extended.parent.iterdir()] == ["extended"]


def test_the_bundle_extended_stays_as_it_was(bundle: Path, tmp_path: Path) -> None:
    before = _checksums(bundle)
    extend(bundle, NEW, tmp_path / "extended")
    assert _checksums(bundle) == before


def test_a_bundle_may_be_replaced_by_what_it_becomes(bundle: Path, extended: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    extend(copy, NEW, copy)
    np.testing.assert_array_equal(_vectors(copy), _vectors(extended))
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_new_item_is_for_users_of_its_category(recommender: Recommender) -> None:
    """Two other items of that category are unseen, and all items of other categories."""
    for user, item in ((103, "twin of 7"), (102, "new 1")):
        assert item in recommender.recommend(pl.DataFrame({"user_id": [user]}), k=3)["item_id"].to_list()
    for user in (100, 101):
        found = recommender.recommend(pl.DataFrame({"user_id": [user]}), k=3)["item_id"].to_list()
        assert not {"twin of 7", "new 1"} & set(found)


def test_a_new_item_counts_in_a_history_as_what_it_is_like(recommender: Recommender) -> None:
    def asked(item: str) -> pl.DataFrame:
        found = recommender.recommend(_given("item 0", item, "item 5"), k=27, include_seen=True)
        return found.sort("item_id").drop("rank")

    twin, seven = asked("twin of 7"), asked("item 7")
    assert twin.drop("score").equals(seven.drop("score"))
    np.testing.assert_allclose(twin["score"], seven["score"], rtol=0, atol=1e-5)
    assert np.abs(asked("item 3")["score"].to_numpy() - seven["score"].to_numpy()).max() > 1e-3


def test_a_history_of_new_items_alone(recommender: Recommender) -> None:
    given = _given("new 1", "new 1")
    formed = recommender.interests(given)
    assert set(formed["item_id"]) == {"new 1"}
    np.testing.assert_allclose(formed.group_by("interest").agg(pl.col("weight").sum())["weight"], 1, atol=1e-5)
    found = recommender.recommend(given, k=6)["item_id"].to_list()
    assert set(found) == {f"item {number}" for number in range(2, 24, CATEGORIES)}  # all of category 2, not itself


def test_a_new_item_that_was_seen_is_excluded_unless_wanted(recommender: Recommender) -> None:
    given = _given("new 1", user_id=102)
    assert "new 1" not in recommender.recommend(given, k=27)["item_id"].to_list()
    assert "new 1" in recommender.recommend(given, k=27, include_seen=True)["item_id"].to_list()


def test_popularity_of_a_new_item_is_that_of_one_never_bought(run: Path, tmp_path: Path) -> None:
    """Among the old items' mean: more items do not make anyone more popular, nor does extending twice."""
    exported = export(run, tmp_path / "bundle", popularity=0.5)
    once = extend(exported, NEW[:1], tmp_path / "once")
    twice = extend(once, NEW[1:], tmp_path / "twice")
    vectors = _vectors(twice)
    assert vectors.shape == (27, 33)
    np.testing.assert_array_equal(vectors[:24], _vectors(exported))
    # four users have two events for training each, of 24 items: a mean of 8 / 24 + 1; 0.035 is 0.5 * 0.07
    np.testing.assert_allclose(vectors[24:, -1], 0.035 * np.log(1 / (8 / 24 + 1)), rtol=1e-5)
    np.testing.assert_allclose(vectors[23, -1], vectors[24, -1], rtol=1e-5)  # item 23 was not bought either
    np.testing.assert_allclose(np.linalg.norm(vectors[24:, :-1], axis=1), 1, atol=1e-6)
    manifest = read_manifest(twice, "bundle")
    assert manifest["extended"]["items"] == 3
    assert manifest["extended"]["from"] == hashlib.sha256((once / "manifest.json").read_bytes()).hexdigest()
    assert "new 2" in Recommender.open(twice).recommend(k=27)["item_id"].to_list()


def test_vectors_of_any_length(run: Path, tmp_path: Path) -> None:
    """With item_norm free, an item without id is as much shorter as its id would have added: features are averaged."""
    shutil.copytree(run, tmp_path / "run")
    text = (tmp_path / "run" / "config.toml").read_text()
    (tmp_path / "run" / "config.toml").write_text(text.replace('item_norm = "unit"', 'item_norm = "free"'))
    manifest = json.loads((run / "manifest.json").read_text())
    files = [tmp_path / "run" / name for name in manifest["files"]]
    content = {key: manifest[key] for key in manifest if key not in ("kind", "format_version", "files")}
    write_manifest(tmp_path / "run", "run", files=files, **content)
    vectors = _vectors(extend(export(tmp_path / "run", tmp_path / "bundle"), NEW, tmp_path / "extended"))
    np.testing.assert_allclose(vectors[24], vectors[7], rtol=0, atol=1e-6)
    assert np.ptp(np.linalg.norm(vectors, axis=1)) > 0.1


WARNINGS: list[tuple[Callable[[pl.DataFrame], pl.DataFrame], list[str]]] = [
    (lambda items: items[:2], []),
    (lambda items: items[:2].drop("title"), []),  # what is only shown may be missing
    (
        lambda items: items[:2].drop("shelf", "tags"),
        ["items: without shelf, tags, which count as none for all new items"],
    ),
    (
        lambda items: items.with_columns(tags=pl.lit(["new", "tag 77"])),
        [
            "items: column 'category': 1 values that no item of the catalogue has count as none",
            "items: column 'tags': 3 values that no item of the catalogue has count as none",
        ],
    ),
]


@pytest.mark.parametrize(("change", "warnings"), WARNINGS)
def test_what_the_model_cannot_know_is_left_out_with_a_warning(
    bundle: Path,
    change: Callable[[pl.DataFrame], pl.DataFrame],
    warnings: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        read_new_items(change(NEW), open_bundle(bundle).store)
    assert [record.getMessage() for record in caplog.records] == warnings


def test_a_tag_that_nobody_knows_is_as_if_it_were_not_there(bundle: Path) -> None:
    store = open_bundle(bundle).store
    found = read_new_items(NEW[:1].with_columns(tags=pl.Series([["tag 77", "tag 2"]])), store)
    assert found.features[0, 3:].tolist() == [0, stable_keys(["tag 2"])[0]]


def test_names_and_types_as_tables_have_them(bundle: Path, tmp_path: Path) -> None:
    """Our name for the ids or the shop's own; categories, floats and empty columns from notebooks; CSV."""
    store = open_bundle(bundle).store
    plain = NEW.drop("tags")
    expected = read_new_items(plain, store)
    plain.write_csv(tmp_path / "new.csv")
    notebook = plain.rename({"sku": "item_id"}).with_columns(
        pl.col("item_id", "category").cast(pl.Categorical), pl.col("shelf").cast(pl.Float64), tags=pl.lit(None)
    )
    for table in (tmp_path / "new.csv", notebook, notebook.with_columns(tags=pl.lit([]))):
        found = read_new_items(table, store)
        assert found.items.drop("tags").equals(expected.items.drop("tags"))
        assert found.items.schema == store.items.schema
        np.testing.assert_array_equal(found.features, expected.features)


def test_text_that_looks_like_numbers_is_text_where_the_catalogue_says_so(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("sku,category,shelf\n7,category 1,2\n8,,1\n")
    found = read_new_items(tmp_path / "new.csv", open_bundle(bundle).store)
    assert found.items["item_id"].to_list() == ["7", "8"]
    assert found.items["key"].to_list() == stable_keys(["7", "8"]).tolist()


REFUSALS: list[tuple[pl.DataFrame, str]] = [
    (NEW[:0], "items: expected at least one row, found an empty table"),
    (
        NEW.drop("sku"),
        "items: expected a column 'item_id', found only category, shelf, tags, title; rename the column",
    ),
    (
        NEW.with_columns(colour=1, price=0.5),
        "items: expected the columns of the catalogue, item_id, category, shelf, tags, title, found besides colour, "
        "price; leave these out, or prepare and train with them",
    ),
    (NEW.with_columns(key=1), "found besides key; leave these out"),
    (
        NEW.with_columns(sku=pl.Series([1, 2, 3])),
        "items: column 'item_id': expected String ids as in the catalogue, found Int64; convert the column",
    ),
    (NEW.with_columns(sku=pl.Series([1.0, 2.0, 3.0])), "items: column 'item_id': expected integer or text ids, found"),
    (
        NEW.with_columns(sku=pl.Series(["a", None, "b"])),
        "items: column 'item_id', row 2: expected an id of at most 1,000 bytes",
    ),
    (
        NEW.with_columns(sku=pl.Series(["a", "b", "a"])),
        "items: column 'item_id', row 3: expected each item once, found 'a'",
    ),
    (
        NEW.with_columns(sku=pl.Series(["a", "item 23", "b"])),
        "items: column 'item_id', row 2: expected an item that is not in the catalogue yet, found 'item 23'",
    ),
    (
        NEW.with_columns(category=pl.Series([3, 2, 1])),
        "items: column 'category': expected String ids as in the catalogue, found Int64; convert the column",
    ),
    (
        NEW.with_columns(tags=pl.lit("new")),
        "items: column 'tags': expected List(String) ids as in the catalogue, found String; convert the column",
    ),
    (
        NEW.with_columns(tags=pl.lit([1])),
        "items: column 'tags': expected List(String) ids as in the catalogue, found List(Int64)",
    ),
    (
        NEW.with_columns(tags=pl.Series([["new"], ["a", "b", "c"], ["new", None, "new", "tag 1"]])),
        "items: column 'tags', row 2: expected at most 2 values, which the model was built for, found",
    ),
    (
        NEW.with_columns(shelf=pl.Series([1.0, 0.0, 1.5])),
        "items: column 'shelf', row 3: expected integers or text as ids",
    ),
    (NEW.with_columns(shelf=pl.Series([1, 0, 70_000])), "items: could not be read (conversion from `i64` to `i16`"),
    (
        NEW.with_columns(category=pl.Series(["category 3", "category 98", None]), shelf=None),
        "items: expected of each new item a feature that the model knows, found none of 2 items, the first 'new 1'; "
        "leave these out, or prepare and train with them",
    ),
]


@pytest.mark.parametrize(("items", "message"), REFUSALS, ids=[message for _, message in REFUSALS])
def test_refusals(bundle: Path, items: pl.DataFrame, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        extend(bundle, items, tmp_path / "extended")
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_names_the_file(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    for place in range(2):
        NEW.with_columns(pl.col("sku") + f" {place}").write_parquet(tmp_path / "new" / f"{place}.parquet")
    pl.concat([NEW, ITEMS.with_columns(shelf=1)], how="vertical_relaxed").write_parquet(tmp_path / "new" / "2.parquet")
    with pytest.raises(DataError, match=r"new/2\.parquet: column 'item_id', row 4: .* found 'item 0'"):
        extend(bundle, tmp_path / "new", tmp_path / "extended")


def test_a_catalogue_of_bare_ids_cannot_be_extended(tmp_path: Path) -> None:
    bare = prepare(_events(), None, tmp_path / "store", PrepareConfig(columns={"item": "sku"}))
    with pytest.raises(DataError, match=r"found none of 1 items, the first 'new'"):
        read_new_items(pl.DataFrame({"item_id": ["new"]}), bare)


def test_something_else_is_not_overwritten(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="expected a new path or an earlier bundle"):
        extend(bundle, NEW, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
