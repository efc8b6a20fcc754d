"""Hyper-parameters of the peers: published or recommended ones, and what `--set` puts in their place.

Sources. SASRec and eSASRec: the configurations of arXiv 2508.06450 for ML-1M and (S3-Rec's) Beauty,
github.com/blondered/transformer_benchmark, configs/paper/loo. gSASRec: those sizes with the loss of
arXiv 2308.07192, gBCE with 256 negatives and t=0.75 (its own ML-1M model is larger: n_factors=128,
n_blocks=2). ComiRec and MIND: github.com/THUDM/ComiRec, its settings of Taobao for long histories, of
Books for short ones. EASE: arXiv 1905.03375, which tunes the regularization per data set; on Complete
Journey the best of 300, 1000 and 3000 on the validation split. ALS: the
package's defaults with 128 factors; on MovieTweetings and Complete Journey the best of 16, 32, 64
and 128 factors and regularization .01, 1, 10 and 50 on the validation split. Otherwise MovieTweetings
has Beauty's settings, Complete Journey has ML-1M's, for want of published ones: tune before quoting.
"""

import tomllib
from collections.abc import Sequence

from protocol import Settings

from prismrec.errors import ConfigError

_SASREC: Settings = {
    "n_factors": 64,
    "n_blocks": 2,
    "n_heads": 1,
    "dropout_rate": 0.1,
    "session_max_len": 200,
    "lr": 0.001,
    "batch_size": 128,
    "epochs": 100,
    "patience": 50,
    "max_cpu_seconds": 0,
}
_SAMPLED: Settings = {**_SASREC, "n_negatives": 256}
_SHORT: Settings = {
    "n_factors": 256,
    "n_blocks": 1,
    "dropout_rate": 0.2,
    "session_max_len": 50,
    "epochs": 200,
}
_MULTI_INTEREST: Settings = {
    "embedding_dim": 64,
    "num_interests": 4,
    "max_length": 50,
    "batch_size": 256,
    "negatives_per_target": 10,
    "learning_rate": 0.001,
    "steps_per_epoch": 1000,
    "epochs": 1000,
    "patience": 50,
    "max_cpu_seconds": 0,
}
_BOOKS: Settings = {"max_length": 20, "batch_size": 128}

DEFAULTS: dict[str, Settings] = {
    "popularity": {},
    "covisitation": {},
    "ease": {"regularization": 500.0},
    "als": {"factors": 128, "regularization": 0.01, "alpha": 1.0, "iterations": 15},
    "sasrec": {**_SASREC, "layers": "sasrec", "loss": "softmax"},
    "gsasrec": {**_SAMPLED, "layers": "sasrec", "loss": "gBCE", "gbce_t": 0.75},
    "esasrec": {**_SAMPLED, "layers": "ligr", "loss": "sampled_softmax"},
    "comirec_sa": {**_MULTI_INTEREST},
    "comirec_dr": {**_MULTI_INTEREST, "routing_iterations": 3},
    "mind": {**_MULTI_INTEREST, "routing_iterations": 3},
}
"""`max_cpu_seconds` ends a training with the first epoch that ends later; 0 is no limit."""

_SHORT_HISTORIES: dict[str, Settings] = {
    **dict.fromkeys(("sasrec", "gsasrec", "esasrec"), _SHORT),
    **dict.fromkeys(("comirec_sa", "comirec_dr", "mind"), _BOOKS),
}
OF_DATASET: dict[str, dict[str, Settings]] = {
    "amazon_beauty": _SHORT_HISTORIES,
    "movietweetings": {**_SHORT_HISTORIES, "als": {"factors": 32, "regularization": 50.0}},
    "complete_journey": {
        "als": {"factors": 64, "regularization": 10.0},
        "ease": {"regularization": 1000.0},
        "sasrec": {"batch_size": 32},  # of scores of 92,000 items at every position
    },
}
"""Where a data set differs from the defaults."""


def method_settings(method: str, dataset: str, overrides: Sequence[str]) -> Settings:
    """Settings of a peer on a data set; overrides are `key=value`.

    Raises:
        ConfigError: an override is not `key=value`, its key is not one of the method's, or the type is another.
    """
    settings = {**DEFAULTS[method], **OF_DATASET.get(dataset, {}).get(method, {})}
    for override in overrides:
        key, value = _parsed(override)
        if key not in settings:
            known = ", ".join(settings) or "none"
            raise ConfigError(f"--set {method}.{override}: expected one of the settings of {method}: {known}")
        if isinstance(settings[key], float) and isinstance(value, int):
            value = float(value)
        if type(value) is not type(settings[key]):
            kind = type(settings[key]).__name__
            raise ConfigError(f"--set {method}.{override}: expected a value of type {kind}, found {value!r}")
        settings[key] = value
    return settings


def overrides_of(method: str, assignments: Sequence[str]) -> list[str]:
    """Of `--set METHOD.KEY=VALUE`, the `KEY=VALUE` of a method."""
    return [text.removeprefix(f"{method}.") for text in assignments if text.startswith(f"{method}.")]


def check_assignments(assignments: Sequence[str], methods: Sequence[str]) -> None:
    """Refuse a `--set` that no chosen method would read.

    Raises:
        ConfigError: naming it.
    """
    for text in assignments:
        if not any(text.startswith(f"{method}.") for method in methods) or "=" not in text:
            raise ConfigError(
                f"--set {text}: expected METHOD.KEY=VALUE with METHOD one of --methods ({', '.join(methods)})"
            )


def _parsed(override: str) -> tuple[str, object]:
    key, _, text = override.partition("=")
    try:
        return key, tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return key, text  # a bare word is a string, as in PrismRec's own --set
