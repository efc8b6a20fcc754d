"""Settings from TOML files and `--set`: a configuration, or one short line that says what was expected."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from prismrec.config import Config, PrepareConfig
from prismrec.errors import ConfigError, PrismRecError
from prismrec.serve.settings import ServeConfig
from prismrec.toml import dump_toml, load_config, load_settings, override

from .strange import call, fuzzed, outcome, texts

KINDS = (Config, PrepareConfig, ServeConfig)


def keys(kind: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in kind.model_fields.items():
        section = field.annotation
        is_section = isinstance(section, type) and issubclass(section, BaseModel)
        found += [prefix + name, *(keys(section, f"{prefix}{name}.") if is_section else [])]
    return found


KEYS = sorted({key for kind in KINDS for key in keys(kind)})
VALUES = st.one_of(
    st.sampled_from(
        ["nan", "inf", "-inf", "1e400", "9" * 5000, "0x" + "f" * 9999, "[" * 5000, "{a=" * 500, "-1", "0", ""]
    ),
    st.sampled_from(
        ["5\nb = 6", "5\n[train]\nepochs = 7", "2024-01-01", "none", "true", "'''", "\0", "\udcff", "[[1]]"]
    ),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(repr),
    texts.filter(lambda text: len(text) < 99).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.text(max_size=9),
)
PATHS = st.sampled_from(KEYS) | st.builds("{}.{}".format, st.sampled_from(KEYS), st.text(max_size=4))
PATHS |= st.sampled_from(
    ["", ".", "..", "a" * 10**4, "train.", ".train", "train..epochs", "a." * 5000 + "b", "\udcff", "\0"]
)


def numbers(content: object) -> list[float]:
    """Every number in settings."""
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list | tuple):
        return [number for each in content for number in numbers(each)]
    return [content] if isinstance(content, int | float) else []


@fuzzed(1500)
@given(kind=st.sampled_from(KINDS), given=st.lists(st.tuples(PATHS, VALUES), min_size=1, max_size=3))
def test_any_setting(tried, kind, given) -> None:
    found = outcome(lambda: load_settings(kind, None, [f"{key}={value}" for key, value in given]))
    if not isinstance(found, PrismRecError):
        for number in numbers(found.model_dump()):
            assert math.isfinite(number) if isinstance(number, float) else abs(number) < 2**40
        if kind is Config:
            assert override(Config(), found.model_dump()) == found
    tried("settings", 1)


@fuzzed(500)
@given(
    lines=st.lists(st.builds("{} = {}".format, PATHS, VALUES) | st.builds("[{}]".format, PATHS) | st.text(max_size=20))
)
def test_any_file(tmp_path_factory, tried, lines) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    found = outcome(lambda: load_config(path), str(path))
    assert isinstance(found, PrismRecError | Config)
    tried("files of settings", 1)


WHOLE = dump_toml(Config()).encode()


@fuzzed(500)
@given(start=st.integers(0, len(WHOLE)), length=st.integers(0, 30), put=st.binary(max_size=9))
def test_a_damaged_file(tmp_path_factory, tried, start, length, put) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.toml"
    path.write_bytes(WHOLE[:start] + put + WHOLE[start + length :])
    found = outcome(lambda: load_config(path), str(path))
    assert isinstance(found, PrismRecError | Config)
    tried("files of settings", 1)


FILES = {
    "lists in lists": (b"a = " + b"[" * 5000 + b"]" * 5000, "expected a TOML file (it is nested too deeply)"),
    "tables in tables": (
        b"a = " + b"{a=" * 5000 + b"1" + b"}" * 5000,
        "expected a TOML file (it is nested too deeply)",
    ),
    "a deep section": (b"[" + b"a." * 250 + b"a]", "a={'a': {'a': {'a': {'a': {'a': {'a': {...}}}}}}}: Extra inputs"),
    "a deeper key": (b"a." * 400_000 + b"a = 1", "expected a TOML file (a line has more than 256 dots)"),
    "10 MB": (b"#" * 10_000_000, "expected a TOML file (it has more than 1 MiB)"),
    "a long text": (b'a = "' + b"x" * 900_000 + b'"', "a='xxx"),
    "many keys": (
        b"".join(b"key%d = 1\n" % number for number in range(40_000)),
        "key0=1: Extra inputs are not permitted",
    ),
    "bytes": (bytes(range(256)), "expected a TOML file ('utf-8' codec can't decode byte 0x80"),
    "NUL": (b'a = "\0"', "expected a TOML file (Illegal character"),
    "UTF-16": ("a = 1".encode("utf-16"), "expected a TOML file ('utf-8' codec"),
    "half a character": (b'a = "\\ud800"', "expected a TOML file (Escaped character is not a Unicode scalar value"),
    "infinite": (b"[train]\nlearning_rate = 1e400", "train.learning_rate=inf: Input should be a finite number"),
    "too large": (b"[train]\nbatch_size = 9223372036854775807", "train.batch_size: expected whole numbers below 2^40"),
    "too large in hexadecimals": (
        b"[train]\nepochs = 0x" + b"f" * 99_999,
        "train.epochs: expected whole numbers below",
    ),
    "too large in a list": (
        b"[model]\ndwell_boundaries = [1, 99999999999999]",
        "model.dwell_boundaries: expected whole",
    ),
    "too large in a table": (b"[model.hashing.primes]\na = [1099511627776]", "model.hashing.primes: expected whole"),
    "a list for a section": (b"[[train]]\nepochs = 1", "train=[{'epochs': 1}]: Input should be a valid dictionary"),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_what_is_said_of_a_file(tmp_path: Path, tried, content: bytes, message: str) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(content)
    found = outcome(lambda: load_config(path), f"{path}: {message}")
    assert isinstance(found, ConfigError)
    tried("files of settings", 1)


SETTINGS = {
    "two values": ("train.epochs=5\nb = 6", r"train.epochs='5\nb = 6': Input should be a valid integer"),
    "a deep key": ("a." * 20 + "a=1", "expected a key of at most 16 parts"),
    "a deep value": ("train.epochs=" + "[" * 5000, "train.epochs='[[["),
    "many digits": ("train.epochs=" + "9" * 5000, "train.epochs='999"),
    "bytes": ("train.epochs=\udcff", r"train.epochs='\udcff': Input should be a valid string"),
}


@pytest.mark.parametrize(("setting", "message"), SETTINGS.values(), ids=SETTINGS)
def test_what_is_said_of_a_setting(setting: str, message: str) -> None:
    assert message in str(outcome(lambda: load_config(None, [setting])))


@pytest.mark.parametrize("name", ["", "none.toml", "x" * 5000])
def test_what_is_no_file(tmp_path: Path, name: str) -> None:
    status, out, err = call("train", tmp_path / "store", "--out", tmp_path / "run", "--config", tmp_path / name)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "expected a TOML file (" in err
    assert list(tmp_path.iterdir()) == []
