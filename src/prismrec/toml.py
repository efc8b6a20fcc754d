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
from prismrec.errors import ConfigError

_Model = TypeVar("_Model", bound=BaseModel)


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
    content: dict[str, Any] = {}
    if path is not None:
        try:
            content = tomllib.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: expected a TOML file ({error})") from error
    for override in overrides:
        _apply(content, override)
    return _validate(kind, content, source=str(path) if path else "configuration")


def load_prepare_config(columns: Mapping[str, str] | None = None, overrides: Sequence[str] = ()) -> PrepareConfig:
    """Settings of `prepare`: defaults, then names of columns, then `key=value` overrides.

    Raises:
        ConfigError: a key or value is not valid.
    """
    content: dict[str, Any] = {"columns": dict(columns or {})}
    for override in overrides:
        _apply(content, override)
    return _validate(PrepareConfig, content, "prepare")


def parse_prepare_config(content: dict[str, Any], source: str) -> PrepareConfig:
    """Validate plain data as a `PrepareConfig`; errors name the key, the value and what was expected."""
    return _validate(PrepareConfig, content, source)


def parse_config(content: dict[str, Any], source: str = "configuration") -> Config:
    """Validate plain data as a `Config`; errors name the key, the value and what was expected."""
    return _validate(Config, content, source)


def dump_toml(config: Config) -> str:
    """Write a configuration as TOML that `load_config` reads back equal; unset options are left out."""
    return "\n".join(_toml_lines(config.model_dump(mode="json", exclude_none=True))) + "\n"


def _validate(kind: type[_Model], content: dict[str, Any], source: str) -> _Model:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"]) or "config"
        raise ConfigError(f"{source}: {key}={problem['input']!r}: {problem['msg']}") from error


def _apply(content: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {override!r}: expected key=value, for example train.epochs=5")
    *parents, leaf = key.strip().split(".")
    section = content
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise ConfigError(f"--set {override!r}: {parent!r} is a value, not a section")
    try:
        section[leaf] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        section[leaf] = text.strip()  # a bare word is a string: --set model.routing=hard


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
