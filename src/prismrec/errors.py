"""The exceptions PrismRec raises on purpose; each message says what was expected, what came and what to do.

    PrismRecError
    ├── ConfigError      a setting is unknown, of the wrong type or out of range
    ├── DataError        an input table is missing, unreadable or breaks the schema
    ├── ArtifactError    a store, run or bundle is missing, damaged or of another format
    ├── TrainingError    training cannot go on (non-finite loss, no examples)
    │   └── RankError    another process of a distributed training failed, which says why, or is gone
    └── SearchIndexError an index cannot be built at the required recall, or does not fit its vectors

The CLI prints the message on one line and exits with status 1; anything else is a defect. What came is shown by `shown`
and `listed_names`, so that a message stays short whatever came.
"""

import reprlib
from collections.abc import Iterable

_MOST_NAMES = 20


class _Short(reprlib.Repr):
    """Text and numbers up to 200 characters, containers up to 20 values."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 200
        self.maxlist = self.maxtuple = self.maxdict = 20

    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # Python writes no more digits
            return f"an integer of {x.bit_length():,} bits"


_SHORT = _Short()


class PrismRecError(Exception):
    """Base of every error a user of PrismRec can cause and mend."""


class ConfigError(PrismRecError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(PrismRecError):
    """An input table is missing, unreadable or breaks the schema."""


class ArtifactError(PrismRecError):
    """A store, run or bundle is missing, damaged or of another format."""


class TrainingError(PrismRecError):
    """Training cannot go on, for example because the loss is not finite."""


class RankError(TrainingError):
    """Another process of a distributed training failed, or is gone."""

    STATUS = 75
    """Of a process that ends since another did, which says why."""


class SearchIndexError(PrismRecError):
    """An index cannot be built at the required recall, or does not fit its vectors."""


def shown(value: object) -> str:
    """A value in the words of Python; of a long one, both ends."""
    return _SHORT.repr(value)


def listed_names(names: Iterable[object]) -> str:
    """Names with commas between; of many, the first, and how many more there are."""
    texts = [shortened(name) for name in names]
    more = len(texts) - _MOST_NAMES
    return ", ".join(texts) if more <= 0 else f"{', '.join(texts[:_MOST_NAMES])} and {more:,} more"


def shortened(value: object) -> str:
    """A value as text that a terminal shows and does not obey; of a long one, the beginning."""
    text = str(value)
    cut = text if len(text) <= _SHORT.maxstring else f"{text[: _SHORT.maxstring]}..."
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in cut)
