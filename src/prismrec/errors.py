"""The exceptions PrismRec raises on purpose; each message says what was expected, what came and what to do.

    PrismRecError
    ├── ConfigError      a setting is unknown, of the wrong type or out of range
    ├── DataError        an input table is missing, unreadable or breaks the schema
    ├── ArtifactError    a store, run or bundle is missing, damaged or of another format
    ├── TrainingError    training cannot go on (non-finite loss, no examples)
    │   └── RankError    another process of a distributed training failed, which says why, or is gone
    └── SearchIndexError an index cannot be built at the required recall, or does not fit its vectors

The CLI prints the message on one line and exits with status 1; anything else is a defect.
"""


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
