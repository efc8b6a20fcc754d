"""Category diversity by hand."""

import numpy as np

from prismrec.evaluate.metrics.diversity import category_diversity

CATEGORIES = np.array([0, 77, 77, 88, 0])  # of padding and rows 1 to 4


def test_empty_list_has_no_value() -> None:
    assert np.isnan(category_diversity(np.zeros((1, 3), np.int64), CATEGORIES)).all()


def test_distinct_categories_per_item() -> None:
    lists = np.array([[1, 2, 3], [1, 2, 0], [1, 3, 0]])
    np.testing.assert_allclose(category_diversity(lists, CATEGORIES), [2 / 3, 1 / 2, 1])


def test_unknown_categories_add_length_but_no_variety() -> None:
    np.testing.assert_allclose(category_diversity(np.array([[1, 4]]), CATEGORIES), [0.5])
