"""The full settings of a run: hash tables sized from the store, or the run's own when it is resumed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from prismrec.config import Config, HashingConfig
from prismrec.data.store import Store
from prismrec.errors import ArtifactError, ConfigError
from prismrec.model.multi_interest import resolve_primes
from prismrec.model.run import CONFIG
from prismrec.toml import load_config
from prismrec.train.checkpoint import CHECKPOINT


def resolve_config(
    store: Store, out: Path, config: Config | None, *, resume: bool, older: Config | None = None
) -> Config:
    """Decide the settings of a run, and whether it may be in `out`.

    Args:
        store: what is trained on; sizes the hash tables that the settings leave open.
        out: the run directory.
        config: the settings given; with `resume`, None means those of the run.
        resume: `out` may hold a run.
        older: settings of a warm start, whose hash tables are kept at their size so that they fit.

    Raises:
        ArtifactError: `out` holds a run and `resume` is not set, or holds something else.
        ConfigError: other settings than those of the run to resume, or moduli of an unknown feature.
    """
    if not check_place(out, resume=resume):
        return size_tables(config or Config(), store, older)
    saved = load_config(out / CONFIG)
    if config is not None:
        _check_same(size_tables(config, store, saved), saved, out / CONFIG)
    return saved


def check_place(out: Path, *, resume: bool) -> bool:
    """Whether `out` holds a run to resume.

    Raises:
        ArtifactError: it holds a run and `resume` is not set, or holds something else.
    """
    if not (out / CONFIG).exists():
        if out.exists() and not _is_free(out):
            raise ArtifactError(f"{out}: expected a new or empty directory for the run; choose another --out")
        return False
    if not resume:
        raise ArtifactError(f"{out}: holds a run already; add --resume to continue it, or choose another --out")
    return True


def _check_same(given: Config, saved: Config, path: Path) -> None:
    for key, value, expected in _differences(given.model_dump(), saved.model_dump()):
        raise ConfigError(
            f"--resume: {key}={value!r}, but {path} has {expected!r}; a run goes on with the settings it was started "
            "with: leave out --config and --set, or start a new run with this one as its warm start"
        )


def _is_free(out: Path) -> bool:
    """Whether nothing is there, but for what is left of a process killed before its run began."""
    return out.is_dir() and all(path.name == CHECKPOINT or path.name.startswith(".") for path in out.iterdir())


def size_tables(config: Config, store: Store, older: Config | None = None) -> Config:
    """Give every feature of a store its moduli, those of an older run where it sizes tables alike.

    Raises:
        ConfigError: moduli of an unknown feature.
    """
    schema, hashing = store.schema, config.model.hashing
    features = np.array(schema.item_features)
    distinct = {name: _count(store.item_features[:, features == name]) for name in dict.fromkeys(schema.item_features)}
    if store.context is not None:
        context = np.asarray(store.context)
        distinct |= {name: _count(context[:, column]) for column, name in enumerate(schema.context_features)}
    if config.model.user_id:
        distinct["user_id"] = store.num_users
    unknown = hashing.primes.keys() - distinct.keys()
    if unknown:
        raise ConfigError(
            f"model.hashing.primes: no feature is named {sorted(unknown)[0]!r}; the store has {', '.join(distinct)}"
        )
    if older is not None and _sizing(hashing) == _sizing(older.model.hashing):
        kept = {name: primes for name, primes in older.model.hashing.primes.items() if name in distinct}
        hashing = hashing.model_copy(update={"primes": kept | hashing.primes})
    resolved = resolve_primes(hashing, distinct)
    return config.model_copy(update={"model": config.model.model_copy(update={"hashing": resolved})})


def _count(column: np.ndarray) -> int:
    return len(np.unique(column))


def _sizing(hashing: HashingConfig) -> dict[str, Any]:
    return hashing.model_dump(exclude={"primes"})


def _differences(given: dict[str, Any], saved: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Keys whose values differ, dotted, with both values."""
    for key in sorted(given.keys() | saved.keys()):
        ours, theirs = given.get(key), saved.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield from _differences(ours, theirs, f"{path}{key}.")
        elif ours != theirs:
            yield f"{path}{key}", ours, theirs
