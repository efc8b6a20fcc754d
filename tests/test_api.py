"""The names that a notebook needs are there, and are the real ones."""

from prismrec import api
from prismrec.data.prepare import prepare
from prismrec.train.trainer import train


def test_names() -> None:
    assert api.__all__ == sorted(api.__all__)
    assert all(hasattr(api, name) for name in api.__all__)
    assert api.__doc__ is not None
    for name in ("prepare", "train", "tune", "evaluate", "export", "Recommender", "Retriever"):
        assert f"{name}(" in api.__doc__ or f"{name}." in api.__doc__
    assert (api.prepare, api.train) == (prepare, train)
