"""Keys of ids never change: models and stores of different days and machines must agree."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prismrec.data.schema import Schema, stable_keys

LARGEST = 2**63 - 1
PINNED = {
    "": 3_797_230_976_420_062_948,
    "item 1": 6_144_745_251_313_264_031,
    "é": 3_394_012_004_367_669_963,
    "1": 8_518_482_412_311_870_710,
}
"""Worked out with `b2sum -l 64`: the low 63 bits of its 8 bytes, the first byte lowest."""


def test_keys_by_hand() -> None:
    keys = stable_keys([0, 1, 41, None, LARGEST - 1])
    assert keys.tolist() == [1, 2, 42, 0, LARGEST]
    assert keys.dtype == np.int64


def test_keys_of_text_are_pinned() -> None:
    assert stable_keys(PINNED).tolist() == list(PINNED.values())


def test_integers_that_do_not_fit_are_hashed_as_text() -> None:
    assert stable_keys([-1, LARGEST, 2**64 - 1]).tolist() == stable_keys(["-1", str(LARGEST), str(2**64 - 1)]).tolist()


def test_text_of_digits_is_not_the_integer() -> None:
    assert stable_keys(["7"]) != stable_keys([7])


@given(st.one_of(st.integers(-(2**64), 2**64), st.text()))
def test_keys_are_positive_and_zero_stays_free(value: int | str) -> None:
    (key,) = stable_keys([value])
    assert 0 < key <= LARGEST


def test_no_ids_no_keys() -> None:
    assert stable_keys([]).tolist() == []


def test_categories_are_found_by_name() -> None:
    schema = Schema(item_features=("item_id", "brand", "category", "top_category", "colour"))
    assert schema.category_positions == (2, 3)
    assert Schema(item_features=("item_id",)).category_positions == ()


def test_a_schema_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Schema(item_features=("item_id",)).has_dwell = True


def test_a_schema_survives_json() -> None:
    schema = Schema(item_features=("item_id", "brand"), context_features=("shop",), has_weight=True)
    assert Schema.model_validate_json(schema.model_dump_json()) == schema
