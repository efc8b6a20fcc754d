"""Settings: defaults, files, overrides, and errors that name the key."""

import tomllib
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from prismrec.config import Config, PrepareConfig
from prismrec.errors import ConfigError
from prismrec.toml import dump_toml, load_config, load_prepare_config, override, parse_config


def test_nothing_given_is_the_defaults() -> None:
    assert load_config() == Config() == parse_config({})
    assert load_prepare_config() == PrepareConfig()


def test_a_file_then_overrides(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("exclude_seen = false\n[train]\nepochs = 3\nlearning_rate = 0.5\n")
    config = load_config(tmp_path / "c.toml", ["train.epochs=7", "model.routing=hard", "model.hashing.num_hashes = 2"])
    assert config.exclude_seen is False
    assert (config.train.epochs, config.train.learning_rate) == (7, 0.5)
    assert (config.model.routing, config.model.hashing.num_hashes) == ("hard", 2)
    assert config.loss == Config().loss


def test_values_by_key_on_top_of_a_configuration() -> None:
    given = load_config(overrides=["train.epochs=7", "model.hashing.primes.item_id=[5, 7]"])
    config = override(given, {"model.hashing.num_hashes": 2, "popularity": 0.5})
    assert config == load_config(
        overrides=[
            "train.epochs=7",
            "model.hashing.primes.item_id=[5, 7]",
            "model.hashing.num_hashes=2",
            "popularity=0.5",
        ]
    )
    assert override(given, {}) == given
    with pytest.raises(ConfigError, match="here: model: num_heads=4 must be a multiple of num_interests=3"):
        override(given, {"model.num_interests": 3}, "here")
    with pytest.raises(ConfigError, match="here: 'popularity' is a value, not a section"):
        override(given, {"popularity.dial": 1}, "here")


def test_overrides_are_toml_values() -> None:
    config = load_config(overrides=["model.elapsed_boundaries=[1, 2]", "exclude_seen=false", 'model.routing="hard"'])
    assert (config.model.elapsed_boundaries, config.exclude_seen, config.model.routing) == ((1, 2), False, "hard")


BAD = {
    "unknown key": (["train.epoch=5"], r"configuration: train\.epoch=5: Extra inputs are not permitted"),
    "unknown section": (["training.epochs=5"], "configuration: training="),
    "wrong type": (["train.epochs=many"], r"configuration: train\.epochs='many': .*valid integer"),
    "out of range": (["train.epochs=0"], r"train\.epochs=0: .*greater than or equal to 1"),
    "not a number": (["model.temperature=nan"], r"model\.temperature=nan"),
    "not a choice": (["model.routing=firm"], r"model\.routing='firm': .*'soft', 'hard' or 'straight_through'"),
    "heads": (["model.num_interests=3"], "num_heads=4 must be a multiple of num_interests=3"),
    "top vectors": (["model.top_vectors=9"], "top_vectors=9 must be at most num_interests=4"),
    "hard queue": (["loss.queue_size=64", "loss.hard_queue_size=64"], "hard_queue_size=64 must be below queue_size=64"),
    "hard part without a queue": (
        ["loss.queue_size=0", "loss.hard_queue_size=1", "loss.uniform_negatives=9"],
        "hard_queue_size=1 must be below queue_size=0",
    ),
    "no negatives": (
        ["loss.in_batch_negatives=0", "loss.uniform_negatives=0"],
        "no negatives: set queue_size, in_batch_negatives, uniform_negatives or",
    ),
    "a mixture without pairs": (["loss.joint=false", "loss.reading=maximum"], "reading='maximum' needs joint=true"),
    "attention heads": (["model.encoder.num_heads=3"], r"embedding_dim=64 must be a multiple of encoder\.num_heads=3"),
    "adaptive": (
        ["model.encoder.kind=none", "model.adaptive_interests=true"],
        r"adaptive_interests needs an encoder: set encoder\.kind",
    ),
    "seed": (["train.seed=4294967296"], r"train\.seed=4294967296: .*less than 2147483648"),
    "dropout": (["model.encoder.dropout=1.0"], r"model\.encoder\.dropout=1\.0: .*less than 1"),
    "encoder": (["model.encoder.kind=lstm"], r"model\.encoder\.kind='lstm': .*'none', 'transformer' or 'hstu'"),
    "no value": (["train.epochs"], "--set 'train.epochs': expected key=value, for example"),
    "no key": (["=5"], "--set '=5': expected key=value"),
    "a value as a section": (["exclude_seen=true", "exclude_seen.x=1"], "'exclude_seen' is a value, not a section"),
}


@pytest.mark.parametrize(("overrides", "message"), BAD.values(), ids=BAD)
def test_bad_settings_name_the_key(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=overrides)


@pytest.mark.parametrize("source", ["in_batch_negatives", "uniform_negatives", "full_softmax_items"])
def test_any_source_of_negatives_is_enough(source: str) -> None:
    config = load_config(overrides=["loss.queue_size=0", f"loss.{source}=1"])
    assert (config.loss.queue_size, getattr(config.loss, source)) == (0, 1)


def test_a_queue_may_be_shorter_than_a_batch() -> None:
    config = load_config(overrides=["loss.queue_size=10", "loss.hard_queue_size=9", "train.batch_size=256"])
    assert (config.loss.queue_size, config.loss.hard_queue_size) == (10, 9)


def test_a_file_that_is_missing_or_not_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: expected a TOML file"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "c.toml").write_text("epochs: 3")
    with pytest.raises(ConfigError, match=r"c\.toml: expected a TOML file"):
        load_config(tmp_path / "c.toml")
    (tmp_path / "c.toml").write_text("[train]\nepochs = -1")
    with pytest.raises(ConfigError, match=r"c\.toml: train\.epochs=-1"):
        load_config(tmp_path / "c.toml")


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().train.epochs = 3


PREPARE = {
    "moments together": (["split=global_time", "valid_from=5"], "must be given together"),
    "moments in order": (
        ["split=global_time", "valid_from=5", "test_from=5"],
        "valid_from=5 must be before test_from=5",
    ),
    "moments of another split": (["valid_from=5", "test_from=6"], "need split='global_time'"),
    "shares": (["valid_share=0.5", "test_share=0.5"], r"valid_share=0\.5 \+ test_share=0\.5 must be below 1"),
    "split": (["split=random"], r"prepare: split='random': .*'leave_last_two_out' or 'global_time'"),
    "unknown": (["splits=random"], "prepare: splits='random': Extra inputs"),
}


@pytest.mark.parametrize(("overrides", "message"), PREPARE.values(), ids=PREPARE)
def test_bad_settings_of_prepare(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_prepare_config(overrides=overrides)


def test_columns_of_prepare_have_short_names() -> None:
    config = load_prepare_config({"user": "a", "item": "b", "time": "c", "brand": "d"}, ["repeats=drop"])
    assert config.columns == {"user_id": "a", "item_id": "b", "timestamp": "c", "brand": "d"}
    assert config.repeats == "drop"
    assert load_prepare_config({"user": "a"}, ["columns.item=b"]).columns == {"user_id": "a", "item_id": "b"}
    assert PrepareConfig.model_validate(config.model_dump(mode="json")) == config


CONFIGS = st.builds(
    lambda **settings: parse_config({"model": settings.pop("model"), **settings}),
    exclude_seen=st.booleans(),
    history=st.fixed_dictionaries({"max_length": st.integers(1, 10**6), "before_target_time": st.booleans()}),
    model=st.fixed_dictionaries(
        {
            "top_vectors": st.none() | st.integers(1, 4),
            "elapsed_boundaries": st.lists(st.integers(0, 10**9), max_size=4),
            "temperature": st.floats(1e-300, 1e300),
            "encoder": st.fixed_dictionaries(
                {
                    "kind": st.sampled_from(["none", "transformer", "hstu"]),
                    "num_heads": st.sampled_from([1, 2, 4, 8]),
                    "dropout": st.floats(0, 1, exclude_max=True),
                }
            ),
            "hashing": st.fixed_dictionaries(
                {
                    "primes": st.dictionaries(
                        st.text(st.characters(codec="utf-8"), max_size=8), st.lists(st.integers(2, 10**9), max_size=3)
                    )
                }
            ),
        }
    ),
    train=st.fixed_dictionaries(
        {"max_steps": st.none() | st.integers(1, 10**9), "precision": st.sampled_from(["auto", "bfloat16"])}
    ),
)


@given(CONFIGS)
def test_toml_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, config: Config) -> None:
    path = tmp_path_factory.getbasetemp() / "config.toml"
    path.write_text(dump_toml(config))
    assert load_config(path) == config


def test_toml_holds_every_option_that_is_set() -> None:
    written = tomllib.loads(dump_toml(Config()))
    assert written == Config().model_dump(mode="json", exclude_none=True)


def _sections(kind: type[BaseModel]) -> list[type[BaseModel]]:
    inner = [field.annotation for field in kind.model_fields.values()]
    return [kind, *(s for i in inner if isinstance(i, type) and issubclass(i, BaseModel) for s in _sections(i))]


@pytest.mark.parametrize("section", [*_sections(Config), PrepareConfig], ids=lambda section: section.__name__)
def test_every_number_has_a_range(section: type[BaseModel]) -> None:
    for name, field in section.model_fields.items():
        optional = get_args(field.annotation) if get_origin(field.annotation) is UnionType else (field.annotation,)
        assert field.metadata or name == "seed" or not {int, float} & {*optional}, f"{section.__name__}.{name}"
