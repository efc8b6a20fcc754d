"""Recommendations part by part: the same as in one go, and after a kill no part is made twice."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from prismrec.errors import ArtifactError, ConfigError, DataError
from prismrec.serve import bulk
from prismrec.serve.bulk import recommend_parts
from prismrec.serve.recommender import Recommender

from .conftest import EVENTS, NUM_ITEMS, NUM_USERS, START

QUIET = Console(quiet=True)

UNTIL_KILLED = """
import os, signal, sys
from pathlib import Path
from rich.console import Console
from prismrec.serve import bulk

bundle, out, name = sys.argv[1:]

def watch(event, arguments):
    if event == "os.rename" and Path(os.fsdecode(arguments[1])).name == name:
        os.kill(os.getpid(), signal.SIGKILL)

bulk._USERS_PER_PART = 5
sys.addaudithook(watch)
bulk.recommend_parts(Path(bundle), out, k=4, console=Console(quiet=True))
"""


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_USERS_PER_PART", 5)


@pytest.fixture(scope="module")
def recommender(bundle: Path) -> Recommender:
    return Recommender.open(bundle)


def assert_same(found: pl.DataFrame, expected: pl.DataFrame) -> None:
    """Scores may differ by rounding, since users are encoded in other batches."""
    assert found.drop("score").equals(expected.drop("score"))
    np.testing.assert_allclose(found["score"], expected["score"], atol=1e-6)


def moments(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_ranges_of_users_give_what_all_users_give(bundle: Path, recommender: Recommender, tmp_path: Path) -> None:
    written = recommend_parts(bundle, f"{tmp_path}/recs/", k=4, console=QUIET)
    assert written == (NUM_USERS, 4 * NUM_USERS)
    names = ["_SUCCESS", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert sorted(path.name for path in (tmp_path / "recs").iterdir()) == names
    lengths = [pl.read_parquet(tmp_path / "recs" / name)["user_id"].n_unique() for name in names[1:]]
    assert lengths == [5, 5, 2]
    assert_same(pl.read_parquet(tmp_path / "recs" / "*.parquet"), recommender.recommend(k=4))


def test_files_of_events_are_parts(
    bundle: Path, recommender: Recommender, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The newest event of all files is the moment of every part; a file without rows makes a part without rows."""
    given = EVENTS[:6].with_columns(user_id=pl.Series([200, 200, 3, 300, 300, 7], dtype=pl.Int64))
    given = given.with_columns(timestamp=pl.Series([START, START, START, START, START + 10**6, START]))
    given = pl.concat([given, given[:1].with_columns(user_id=pl.lit(400, pl.Int64), item_id=pl.lit("no such item"))])
    (tmp_path / "users").mkdir()
    for name, rows in {"a": given[:3], "b": given[:0], "c": given[3:]}.items():
        rows.write_parquet(tmp_path / "users" / f"{name}.parquet")
    written = recommend_parts(bundle, f"{tmp_path}/recs", str(tmp_path / "users"), k=4, console=QUIET)
    assert written == (4, 16)
    assert caplog.messages == [
        "ignored 1 given events of items that are not in the catalogue",
        "1 users got no recommendations: they have no events in the catalogue, or nothing is left that they have not "
        "seen",
    ]
    parts = [pl.read_parquet(tmp_path / "recs" / f"part-0000{part}.parquet") for part in range(3)]
    assert [part["user_id"].unique(maintain_order=True).to_list() for part in parts] == [[200, 3], [], [300, 7]]
    assert_same(pl.concat(parts), recommender.recommend(given, k=4))


def test_a_user_in_two_files_is_refused(bundle: Path, tmp_path: Path) -> None:
    for name, users in {"a": [1, 2], "b": [3], "c": [4, 1]}.items():
        pl.DataFrame({"user_id": users}).write_parquet(tmp_path / f"{name}.parquet")
    message = f"{tmp_path}/c.parquet: expected all rows of a user in one file, found 1 again, the first in {tmp_path}/a"
    with pytest.raises(DataError, match=re.escape(message)):
        recommend_parts(bundle, f"{tmp_path}/recs/", str(tmp_path), k=4, console=QUIET)
    assert not (tmp_path / "recs").exists()


def test_a_fault_names_its_file(bundle: Path, tmp_path: Path) -> None:
    pl.DataFrame({"user_id": [1, 777]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: users: expected users of the store, found 1 unknown"):
        recommend_parts(bundle, f"{tmp_path}/recs/", str(tmp_path), k=4, console=QUIET)
    with pytest.raises(ConfigError, match="k=0: expected at least 1"):
        recommend_parts(bundle, f"{tmp_path}/recs/", k=0, console=QUIET)


@pytest.mark.parametrize("name", ["part-00001.parquet", "_SUCCESS"])
def test_killed_and_given_again(bundle: Path, recommender: Recommender, tmp_path: Path, name: str) -> None:
    """Killed when the second part, or the mark of all, is about to be put in place."""
    out = tmp_path / "recs"
    process = subprocess.run([sys.executable, "-c", UNTIL_KILLED, str(bundle), str(out), name], check=False)
    assert process.returncode == -signal.SIGKILL
    before = {name: moment for name, moment in moments(out).items() if not name.startswith(".")}
    assert len(before) == (1 if name.startswith("part") else 3)
    assert not (out / "_SUCCESS").exists()
    assert recommend_parts(bundle, str(out), k=4, console=QUIET) == (NUM_USERS, 4 * NUM_USERS)
    assert moments(out).items() >= before.items()
    assert (out / "_SUCCESS").exists()
    assert_same(pl.read_parquet(out / "part-*.parquet"), recommender.recommend(k=4))


def test_only_what_changed_is_made_again(bundle: Path, tmp_path: Path) -> None:
    users, out = tmp_path / "users", tmp_path / "recs"
    users.mkdir()
    for name, user in {"a": 1, "b": 2, "c": 3}.items():
        pl.DataFrame({"user_id": [user]}).write_parquet(users / f"{name}.parquet")
    recommend_parts(bundle, str(out), str(users), k=4, console=QUIET)
    first = moments(out)

    damaged = out / "part-00000.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    pl.DataFrame({"user_id": [5, 6]}).write_parquet(users / "b.parquet")
    assert recommend_parts(bundle, str(out), str(users), k=4, console=QUIET) == (4, 16)
    second = moments(out)
    assert {name for name in first if first[name] == second[name]} == {"part-00002.parquet"}
    assert pl.read_parquet(damaged)["user_id"].to_list() == [1] * 4

    (users / "c.parquet").unlink()
    assert recommend_parts(bundle, str(out), str(users), k=4, console=QUIET) == (3, 12)
    assert sorted(moments(out)) == ["_SUCCESS", "part-00000.parquet", "part-00001.parquet"]
    assert recommend_parts(bundle, str(out), str(users), k=3, console=QUIET) == (3, 9)


def test_a_damaged_part_is_made_again(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "recs"
    recommend_parts(bundle, f"{out}/", k=4, console=QUIET)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    content = bytearray(before["part-00001.parquet"])
    content[content.index(b"item ") + 5] ^= 1  # of an id
    (out / "part-00001.parquet").write_bytes(content)
    unharmed = moments(out)
    assert recommend_parts(bundle, f"{out}/", k=4, console=QUIET) == (NUM_USERS, 4 * NUM_USERS)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    same = ("part-00000.parquet", "part-00002.parquet")
    assert [moments(out)[name] for name in same] == [unharmed[name] for name in same]


@pytest.mark.parametrize(
    "mark", [b"[", b"[" * 100_000, b"3", b'{"fingerprint": "x"}', b'{"fingerprint": 1, "users": "x"}']
)
def test_a_part_with_a_strange_footer_is_not_of_ours(bundle: Path, tmp_path: Path, mark: bytes) -> None:
    table = pa.table({"user_id": [1]}).replace_schema_metadata({b"prismrec": mark})
    pq.write_table(table, tmp_path / "part-00000.parquet")
    with pytest.raises(ArtifactError, match="expected an empty folder or one of earlier parts, found part-00000"):
        recommend_parts(bundle, f"{tmp_path}/", k=4, console=QUIET)


def test_more_items_than_there_are(bundle: Path, recommender: Recommender) -> None:
    assert recommender.recommend(k=10**30).equals(recommender.recommend(k=NUM_ITEMS))


def test_what_is_not_of_parts_is_left_alone(bundle: Path, tmp_path: Path) -> None:
    for name in ("part-00000.parquet", "other.txt"):
        folder = tmp_path / name
        folder.mkdir()
        pl.DataFrame({"user_id": [1]}).write_parquet(folder / name)
        with pytest.raises(ArtifactError, match=f"expected an empty folder or one of earlier parts, found {name}"):
            recommend_parts(bundle, str(folder), k=4, console=QUIET)
        assert pl.read_parquet(folder / name).shape == (1, 1)
