"""What a search may try is checked value by value before the first trial."""

from pathlib import Path
from typing import Any

import pytest

from prismrec.config import Config
from prismrec.errors import ConfigError
from prismrec.train.space import Choices, Range, read_space

TOML = """
"model.num_interests" = [1, 2, 4, 8]
loss.log_q = {low = 0, high = 1}

[train]
learning_rate = {low = 1e-4, high = 1e-2, log = true}
epochs = {low = 1, high = 9}
decay = ["cosine", "none"]
"""


def test_quoted_dotted_or_in_sections(tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(TOML)
    space = read_space(tmp_path / "space.toml", Config())
    assert space == {
        "model.num_interests": Choices([1, 2, 4, 8]),
        "loss.log_q": Range(low=0.0, high=1.0),
        "train.learning_rate": Range(low=1e-4, high=1e-2, log=True),
        "train.epochs": Range(low=1, high=9),
        "train.decay": Choices(["cosine", "none"]),
    }
    kinds = {key: type(values.distribution()).__name__ for key, values in space.items()}
    assert kinds == {
        "model.num_interests": "CategoricalDistribution",
        "loss.log_q": "FloatDistribution",  # 0 and 1 are written as whole numbers, but the setting is none
        "train.learning_rate": "FloatDistribution",
        "train.epochs": "IntDistribution",
        "train.decay": "CategoricalDistribution",
    }


def test_values_need_not_go_with_the_other_settings_alone() -> None:
    """Eight interests need eight heads, which a trial may have."""
    space = {"model.num_interests": [8], "model.num_heads": [4, 8]}
    assert list(read_space(space, Config())) == ["model.num_interests", "model.num_heads"]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "space: expected keys with values to try"),
        ({"model.num_interest": [1]}, "space: model.num_interest=1: Extra inputs are not permitted"),
        ({"train": {"epoch": [1]}}, "space: train.epoch=1: Extra inputs are not permitted"),
        ({"model.num_interests": [1, 0]}, "space: model.num_interests=0: Input should be greater than or equal to 1"),
        ({"model.num_interests": []}, r"model.num_interests: expected a list of values, or {low = 1, high = 9}"),
        ({"model.num_interests": 4}, "expected a list of values, .* found 4"),
        ({"train.decay": ["cosine", "step"]}, "train.decay='step': Input should be 'none', 'linear' or 'cosine'"),
        ({"train.epochs": {"low": 1.0, "high": 4.0}}, "train.epochs=1.95.*: Input should be a valid integer"),
        ({"train.epochs": {"low": 5, "high": 5}}, "low=5 must be below high=5"),
        ({"train.weight_decay": {"low": 0, "high": 1, "log": True}}, "low=0 must be above 0 with log=true"),
        ({"train.learning_rate": {"low": 0.1}}, "train.learning_rate: expected .* found {'low': 0.1}"),
        ({"train.learning_rate": {"low": -0.1, "high": 1}}, "train.learning_rate=-0.1: Input should be greater than 0"),
        ({"loss.log_q": {"low": 0, "high": 2}}, "loss.log_q=2.0: Input should be less than or equal to 1"),
        ({"popularity.dial": [1]}, "space: 'popularity' is a value, not a section"),
        ({"train.validate_k": [5, 50]}, "train.validate_k: trials of different values would not compare"),
        ({"train.seed": [1, 2]}, "train.seed: trials of different values would not compare"),
    ],
)
def test_what_is_wrong_is_named(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_space(space, Config())


def test_no_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: expected a TOML file"):
        read_space(tmp_path / "none.toml", Config())
    (tmp_path / "bad.toml").write_text("train.epochs = [1, 2")
    with pytest.raises(ConfigError, match=r"bad\.toml: expected a TOML file"):
        read_space(tmp_path / "bad.toml", Config())
