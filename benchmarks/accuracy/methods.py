"""The methods by name."""

from peers.counting import covisit, popularity
from peers.ease import ease
from peers.elsewhere import als, transformer
from peers.multi_interest import comirec_dr, comirec_sa, mind
from peers.prismrec_model import NAME, config_path, prismrec
from protocol import Method

from prismrec.errors import ConfigError

METHODS: dict[str, Method] = {
    "popularity": popularity,
    "covisitation": covisit,
    "ease": ease,
    "als": als,
    "sasrec": transformer,
    "gsasrec": transformer,
    "esasrec": transformer,
    "comirec_sa": comirec_sa,
    "comirec_dr": comirec_dr,
    "mind": mind,
    NAME: prismrec,
}
WITHOUT_SEED = ("popularity", "covisitation", "ease")
"""The same for every seed, so trained once."""


def find_method(name: str, dataset: str) -> Method:
    """The method of this name; `prismrec-NAME` is PrismRec with configuration NAME.

    Raises:
        ConfigError: there is none.
    """
    if is_prismrec(name):
        config_path(name, dataset)
        return prismrec
    if name not in METHODS:
        raise ConfigError(f"--methods {name}: expected one of {', '.join(METHODS)} or {NAME}-CONFIGURATION")
    return METHODS[name]


def is_prismrec(name: str) -> bool:
    """Whether a name means PrismRec, with any configuration."""
    return name == NAME or name.startswith(f"{NAME}-")
