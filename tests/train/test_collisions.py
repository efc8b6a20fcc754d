"""Shares of ids that share rows: worked out by hand, bounded, and found as often as expected."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prismrec.train.collisions import expected_collisions, found_collisions


def test_found_by_hand() -> None:
    # modulo 3: 1 2 0 1 2 1; modulo 2: 1 0 1 0 1 0; rows of both: (1,1) (2,0) (0,1) (1,0) (2,1) (1,0)
    found = found_collisions(np.array([1, 2, 3, 4, 5, 10]), (3, 2))
    assert found.in_a_table == pytest.approx((5 / 6 + 6 / 6) / 2)  # 3 is alone modulo 3
    assert found.in_every_table == pytest.approx(5 / 6)
    assert found.the_same == pytest.approx(2 / 6)  # 4 and 10, which differ by 6


def test_expected_by_hand() -> None:
    # three ids: each is alone among p rows with chance (1 - 1/p)^2
    expected = expected_collisions(3, (2, 5))
    in_two, in_five = 1 - 0.5**2, 1 - 0.8**2
    assert expected.in_a_table == pytest.approx((in_two + in_five) / 2)
    assert expected.in_every_table == pytest.approx(in_two * in_five)
    assert expected.the_same == pytest.approx(1 - 0.9**2)


def test_a_million_ids_in_a_million_rows() -> None:
    expected = expected_collisions(1_000_000, (1_000_003, 1_000_033, 1_000_037, 1_000_039))
    assert expected.in_a_table == pytest.approx(1 - np.exp(-1), rel=1e-4)
    assert expected.in_every_table == pytest.approx((1 - np.exp(-1)) ** 4, rel=1e-3)
    assert expected.the_same == pytest.approx(1e-18, rel=1e-3)  # (n - 1) / product of the moduli


def test_small_ids_below_the_modulus_are_alone() -> None:
    assert found_collisions(np.arange(1, 101), (101, 103)).in_a_table == 0


@pytest.mark.parametrize("ids", [[], [7]])
def test_none_or_one_id_shares_nothing(ids: list[int]) -> None:
    expected, found = expected_collisions(len(ids), (11, 13)), found_collisions(np.array(ids, np.int64), (11, 13))
    assert found == expected
    assert found.in_a_table == found.in_every_table == found.the_same == 0


@given(
    st.lists(st.integers(1, 2**63 - 1), min_size=1, max_size=30, unique=True),
    st.lists(st.sampled_from([2, 3, 5, 7, 11, 2_147_483_647]), min_size=1, max_size=4, unique=True),
)
def test_who_is_the_same_shares_every_row(ids: list[int], primes: list[int]) -> None:
    found = found_collisions(np.array(ids), primes)
    rows = [tuple(each % prime for prime in primes) for each in ids]
    assert found.the_same == pytest.approx(np.mean([rows.count(row) > 1 for row in rows]))
    assert 0 <= found.the_same <= found.in_every_table <= found.in_a_table <= 1


def test_random_ids_are_found_as_often_as_expected() -> None:
    ids = np.unique(np.random.default_rng(0).integers(1, 2**62, 20_000))
    primes = (9_973, 20_011, 40_009)
    found, expected = found_collisions(ids, primes), expected_collisions(len(ids), primes)
    assert found.in_a_table == pytest.approx(expected.in_a_table, abs=0.01)
    assert found.in_every_table == pytest.approx(expected.in_every_table, abs=0.02)
