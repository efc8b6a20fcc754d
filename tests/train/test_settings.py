from collections.abc import Callable
from pathlib import Path

import pytest

from prismrec.config import Config
from prismrec.data.store import Store
from prismrec.errors import ArtifactError, ConfigError
from prismrec.model.run import write_config
from prismrec.train.settings import resolve_config

MakeConfig = Callable[..., Config]


def resolve(
    store: Store, out: Path, config: Config | None, resume: bool = False, older: Config | None = None
) -> Config:
    return resolve_config(store, out, config, resume=resume, older=older)


def test_hash_tables_are_sized_by_the_store(store: Store, tmp_path: Path, make_config: MakeConfig) -> None:
    resolved = resolve(store, tmp_path / "run", make_config("model.user_id=true"))
    # 64 items, 8 categories and 5 shops (both below the smallest table), padding counted, and 160 users
    assert resolved.model.hashing.primes == {
        "item_id": (67, 71),
        "category": (11, 13),
        "shop": (11, 13),
        "user_id": (163, 167),
    }
    assert not (tmp_path / "run").exists()


def test_given_moduli_are_kept_and_unknown_features_refused(
    store: Store, tmp_path: Path, make_config: MakeConfig
) -> None:
    given = resolve(store, tmp_path, make_config("model.hashing.primes.shop=[5]"))
    assert given.model.hashing.primes["shop"] == (5,)
    with pytest.raises(ConfigError, match="no feature is named 'colour'; the store has item_id, category, shop"):
        resolve(store, tmp_path, make_config("model.hashing.primes.colour=[5]"))


def test_a_warm_start_keeps_the_size_of_tables(store: Store, tmp_path: Path, make_config: MakeConfig) -> None:
    older = make_config("model.hashing.primes.item_id=[61, 59]", "model.hashing.primes.gone=[5, 7]")
    primes = resolve(store, tmp_path, make_config(), older=older).model.hashing.primes
    assert primes["item_id"] == (61, 59)
    assert primes["category"] == (11, 13)
    assert "gone" not in primes
    more = make_config("model.hashing.rows_per_id=2.0")
    assert resolve(store, tmp_path, more, older=older).model.hashing.primes["item_id"] == (131, 137)


@pytest.fixture
def run(store: Store, tmp_path: Path, make_config: MakeConfig) -> Path:
    write_config(tmp_path / "run", resolve(store, tmp_path / "run", make_config()))
    return tmp_path / "run"


def test_a_run_is_not_overwritten(store: Store, run: Path, make_config: MakeConfig) -> None:
    with pytest.raises(ArtifactError, match="holds a run already; add --resume"):
        resolve(store, run, make_config())


def test_resuming_takes_the_settings_of_the_run(store: Store, run: Path, make_config: MakeConfig) -> None:
    resolved = resolve(store, run, None, resume=True)
    assert resolved.train.batch_size == 32
    assert resolved == resolve(store, run, make_config(), resume=True)


def test_resuming_with_other_settings_names_the_first(store: Store, run: Path, make_config: MakeConfig) -> None:
    for override, message in (
        ("train.epochs=9", r"train\.epochs=9, but .*config\.toml has 4"),
        ("model.hashing.num_hashes=3", r"model\.hashing\.num_hashes=3, but"),
        ("model.hashing.primes.shop=[5, 7]", r"model\.hashing\.primes\.shop=\(5, 7\), but .* has \(11, 13\)"),
    ):
        with pytest.raises(ConfigError, match=message):
            resolve(store, run, make_config(override), resume=True)


@pytest.mark.parametrize("name", ["notes.txt", "model.safetensors"])
def test_something_else_is_not_written_into(store: Store, tmp_path: Path, make_config: MakeConfig, name: str) -> None:
    (tmp_path / name).write_text("mine")
    for resume in (False, True):
        with pytest.raises(ArtifactError, match="expected a new or empty directory"):
            resolve(store, tmp_path, make_config(), resume=resume)
    with pytest.raises(ArtifactError, match="expected a new or empty directory"):
        resolve(store, tmp_path / name, make_config())


def test_what_a_kill_before_the_first_step_leaves_is_in_nobodys_way(
    store: Store, tmp_path: Path, make_config: MakeConfig
) -> None:
    for name in (".config.toml.123.tmp", "checkpoint/.0.safetensors.123.tmp", "checkpoint/0.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("half")
    for resume in (False, True):
        assert resolve(store, tmp_path, make_config(), resume=resume).train.batch_size == 32
