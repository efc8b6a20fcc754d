"""Settings from TOML files and `key=value` overrides, and back to TOML.

Takes a TOML file and `--set a.b=c` overrides; gives a `Config` (or, for `prepare`, a `PrepareConfig`).
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from prismrec.config import Config, PrepareConfig
from prismrec.errors import ConfigError, listed_names, shown

_Model = TypeVar("_Model", bound=BaseModel)
_LARGEST = 2**20  # bytes of a file
_MOST_DOTS = 256  # of a line: tomllib takes memory and time by the square of the parts of a key
_DEEPEST = 16  # parts of a key


def load_config(path: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration: defaults, then the TOML file, then `section.key=value` overrides.

    Raises:
        ConfigError: the file cannot be read, or a key or value is not valid.
    """
    return load_settings(Config, path, overrides)


def load_settings(kind: type[_Model], path: Path | None = None, overrides: Sequence[str] = ()) -> _Model:
    """Read settings of any kind: defaults, then the TOML file, then `key=value` overrides.

    Raises:
        ConfigError: the file cannot be read, or a key or value is not valid.
    """
    content = {} if path is None else read_toml(path)
    for text in overrides:
        _apply(content, text)
    return _validate(kind, content, source=str(path) if path else "configuration")


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file of up to 1 MiB.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise ValueError("it has more than 1 MiB")
        if any(line.count(b".") > _MOST_DOTS for line in text.splitlines()):
            raise ValueError(f"a line has more than {_MOST_DOTS} dots")
        return tomllib.loads(text.decode())
    except RecursionError:
        raise ConfigError(f"{path}: expected a TOML file (it is nested too deeply)") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: expected a TOML file ({listed_names([error])})") from error


def load_prepare_config(columns: Mapping[str, str] | None = None, overrides: Sequence[str] = ()) -> PrepareConfig:
    """Settings of `prepare`: defaults, then names of columns, then `key=value` overrides.

    Raises:
        ConfigError: a key or value is not valid.
    """
    content: dict[str, Any] = {"columns": dict(columns or {})}
    for text in overrides:
        _apply(content, text)
    return _validate(PrepareConfig, content, "prepare")


def parse_prepare_config(content: dict[str, Any], source: str) -> PrepareConfig:
    """Validate plain data as a `PrepareConfig`; errors name the key, the value and what was expected."""
    return _validate(PrepareConfig, content, source)


def parse_config(content: dict[str, Any], source: str = "configuration") -> Config:
    """Validate plain data as a `Config`; errors name the key, the value and what was expected."""
    return _validate(Config, content, source)


def override(config: Config, values: Mapping[str, Any], source: str = "configuration") -> Config:
    """The configuration with other values of some keys, such as `{"model.num_interests": 8}`.

    Raises:
        ConfigError: a key or value is not valid, or they do not go together.
    """
    content = config.model_dump()
    for key, value in values.items():
        _put(content, key, value, source)
    return _validate(Config, content, source)


def dump_toml(config: Config) -> str:
    """Write a configuration as TOML that `load_config` reads back equal; unset options are left out."""
    return "\n".join(_toml_lines(config.model_dump(mode="json", exclude_none=True))) + "\n"


def _validate(kind: type[_Model], content: dict[str, Any], source: str) -> _Model:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        key = listed_names([".".join(str(part) for part in problem["loc"])]) or "config"
        if problem["type"] == "value_error":  # of several settings: the message names them
            raise ConfigError(f"{source}: {key}: {problem['msg'].removeprefix('Value error, ')}") from error
        raise ConfigError(f"{source}: {key}={shown(problem['input'])}: {problem['msg']}") from error


def _apply(content: dict[str, Any], setting: str) -> None:
    key, separator, text = setting.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {shown(setting)}: expected key=value, for example train.epochs=5")
    try:
        found = tomllib.loads(f"value = {text}")
        value = found["value"] if len(found) == 1 else text.strip()
    except (ValueError, RecursionError):
        value = text.strip()  # a bare word is a string: --set model.routing=hard
    _put(content, key.strip(), value, f"--set {shown(setting)}")


def _put(content: dict[str, Any], key: str, value: Any, source: str) -> None:
    *parents, leaf = key.split(".")
    if len(parents) >= _DEEPEST:
        raise ConfigError(f"{source}: expected a key of at most {_DEEPEST} parts")
    section = content
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise ConfigError(f"{source}: {shown(parent)} is a value, not a section")
    section[leaf] = value


def _toml_lines(table: dict[str, Any], prefix: str = "") -> list[str]:
    lines = [f"{_toml_key(key)} = {_toml_value(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += ["", f"[{prefix}{_toml_key(key)}]", *_toml_lines(value, f"{prefix}{_toml_key(key)}.")]
    return lines


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_value(key)  # features may be named "pack size"


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return repr(value)
