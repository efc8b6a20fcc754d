"""Which queries are light; the limits themselves are tested over HTTP."""

import pytest

from prismrec.serve.limits import is_light
from prismrec.serve.messages import AnyRecommendQuery


@pytest.mark.parametrize(
    ("query", "light"),
    [
        ({}, True),
        ({"k": 1000}, True),
        ({"k": 1001}, False),
        ({"k": 250, "diversity": 0.5}, True),
        ({"k": 251, "diversity": 0.5}, False),
        ({"k": 900, "exclude_items": [1] * 100}, True),
        ({"k": 900, "exclude_items": [1] * 50, "only_categories": [1] * 51}, False),
        ({"k": 1, "events": [{"item_id": 1, "timestamp": 1}] * 999}, True),
        ({"k": 1, "events": [{"item_id": 1, "timestamp": 1}] * 1000}, False),
        ({"k": 1, "without_events": [{"item_id": 1, "timestamp": 1}] * 1000}, False),
        ({"only_items": None, "k": 1000}, True),
    ],
)
def test_light_queries(query: dict[str, object], light: bool) -> None:
    assert is_light(AnyRecommendQuery.model_validate(query), known_events=0) == light


def test_what_is_known_of_the_user_counts() -> None:
    query = AnyRecommendQuery.model_validate({"user_id": 1, "k": 10})
    assert [is_light(query, known_events=known) for known in (990, 991)] == [True, False]
