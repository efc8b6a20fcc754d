"""The space of a search: for each key of the settings, the values it may take.

Takes a TOML file or a mapping; gives a `Space`, of which every single value was checked against the settings:

    "model.num_interests" = [1, 2, 4, 8]
    "train.learning_rate" = {low = 1e-4, high = 1e-2, log = true}
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, RootModel, StrictBool, StrictFloat, StrictInt, ValidationError, model_validator

from prismrec.config import Config, Section
from prismrec.errors import ConfigError, shown
from prismrec.toml import override, read_toml

if TYPE_CHECKING:  # an extra
    from optuna.distributions import BaseDistribution

_MEASURED_BY = (
    "exclude_seen", "history.before_target_time", "train.validate_k", "train.validate_users", "train.seed"
)  # fmt: skip
"""Settings under which recalls do not compare, and the seed, of which the best is luck."""


class Choices(RootModel[list[StrictBool | StrictInt | StrictFloat | str]]):
    """One of several values."""

    root: list[StrictBool | StrictInt | StrictFloat | str] = Field(min_length=1)

    def distribution(self) -> "BaseDistribution":
        """The same for Optuna."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.root)


class Range(Section):
    """A number between two, both included."""

    low: StrictInt | StrictFloat
    """Of whole numbers, if the setting and both bounds are."""
    high: StrictInt | StrictFloat
    log: bool = False
    """Draw the logarithm uniformly, for what counts by its order of magnitude."""

    def distribution(self) -> "BaseDistribution":
        """The same for Optuna."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    @model_validator(mode="after")
    def _is_range(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low={self.low} must be below high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low={self.low} must be above 0 with log=true")
        return self


Space = dict[str, Choices | Range]
"""Keys such as `model.num_interests`, and what they may be."""


def read_space(source: Path | Mapping[str, Any], config: Config) -> Space:
    """Read and check a space.

    Args:
        source: a TOML file, or the same as a mapping.
        config: the settings that all trials share, which say whether a range without fractions means whole numbers.

    Raises:
        ConfigError: the file cannot be read, or a key or a value is not valid; whether values go together is not
            asked.
    """
    name = str(source) if isinstance(source, Path) else "space"
    found = dict(_flat(read_toml(source) if isinstance(source, Path) else source))
    if not found:
        raise ConfigError(f'{name}: expected keys with values to try, such as "train.batch_size" = [256, 1024]')
    settings = config.model_dump()
    space: Space = {}
    for key, content in found.items():
        if key in _MEASURED_BY:
            raise ConfigError(f"{name}: {key}: trials of different values would not compare; set it for all of them")
        space[key] = _values(f"{name}: {key}", content, _get(settings, key))
        for value in _samples(space[key]):
            _check(config, key, value, name)
    return space


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys; a table is a section, unless it is a range."""
    for key, value in content.items():
        if isinstance(value, Mapping) and not {"low", "high"} & value.keys():
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _values(name: str, content: Any, now: Any) -> Choices | Range:
    """What a key may be, whose value is `now`: a number of that kind, if there is one."""
    try:
        if not isinstance(content, Mapping):
            return Choices.model_validate(content)
        values = Range.model_validate(content)
        if isinstance(now, float) or isinstance(values.low, float) or isinstance(values.high, float):
            return values.model_copy(update={"low": float(values.low), "high": float(values.high)})
        return values
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(
            f"{name}: expected a list of values, or {{low = 1, high = 9}} with or without log = true, found "
            f"{shown(content)} ({problem['msg']})"
        ) from error


def _samples(values: Choices | Range) -> list[Any]:
    if isinstance(values, Choices):
        return values.root
    between = [values.low + (values.high - values.low) / math.pi]  # a fraction, which whole numbers refuse
    return [values.low, values.high, *(between if isinstance(values.low, float) else [])]


def _get(settings: Any, key: str) -> Any:
    """The value of a key; None if there is none."""
    for part in key.split("."):
        settings = settings.get(part) if isinstance(settings, dict) else None
    return settings


def _check(config: Config, key: str, value: Any, name: str) -> None:
    """Refuse a value that is never valid; one that does not go with the others may do so in a trial."""
    try:
        override(config, {key: value}, name)
    except ConfigError as error:
        cause = error.__cause__
        if not isinstance(cause, ValidationError) or cause.errors()[0]["type"] != "value_error":
            raise
