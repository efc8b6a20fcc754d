"""The soak for some seconds, with real processes and one fault of each kind; its judgements by hand."""

import json
import shutil
import sys
from typing import Any

import pytest

import soak
from soak_faults import LANES
from soak_processes import Sample
from soak_record import Record
from soak_report import growth_errors, watched


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs the program redis-server on the PATH")
def test_some_seconds_with_every_fault(tmp_path, monkeypatch, capfd) -> None:
    sizes = ["--minutes", "0.05", "--rate", "40", "--users", "40", "--items", "100"]
    monkeypatch.setattr(sys, "argv", ["soak.py", *sizes, "--out", str(tmp_path / "soak.json")])
    with pytest.raises(SystemExit) as ended:
        soak.main()
    said = capfd.readouterr()
    assert ended.value.code == 0, said
    servers = json.loads((tmp_path / "soak.json").read_text())["servers"]
    assert {name: site["faults"] for name, site in servers.items()} == {
        "A": {"bundle changed": 4, "burst": 2, "server restarted": 2},
        "B": {"bundle changed": 4, "burst": 2, "Redis down": 2, "PostgreSQL down": 2},
    }
    for site in servers.values():
        assert site["events"]["acknowledged"] > 0
        assert (site["events"]["lost"], site["events"]["doubled"], site["events"]["foreign"]) == (0, 0, 0)
        assert all(sample["anonymous"] <= sample["rss"] for sample in site["samples"])
    assert _count(servers["B"], 429) > 0  # A may be down when its crowds come
    assert _count(servers["A"], 0) > 0
    assert _count(servers["B"], 0) == 0
    assert "| events lost | 0 | 0 |" in said.out


def _count(site: dict[str, Any], status: int) -> int:
    return sum(one["count"] for one in site["answers"] if one["status"] == status)


def test_events_lost_doubled_and_foreign_are_counted() -> None:
    kept, again, begun, lost, foreign = (soak.Event(1, 2, time, 3) for time in range(5))
    sent, acknowledged = {kept, again, begun, lost}, {kept, again, lost}
    assert soak.compare(sent, acknowledged, [kept, again, begun, again, foreign]) == (3, 1, 1, 1, 1)
    assert soak.compare(sent, acknowledged, [kept, again, lost]) == (3, 1, 0, 0, 0)


def test_only_what_is_documented_of_a_fault_is_excused() -> None:
    record = Record()

    def ask(status: int, code: str = "") -> int:
        before = len(record.errors)
        record.answered("/path", soak.time.monotonic(), status, code, {(200, "")})
        return len(record.errors) - before

    assert (ask(200), ask(503, "store_unavailable"), ask(0), ask(500, "internal_server_error")) == (0, 1, 1, 1)
    with record.during("Redis down"):
        assert (ask(200), ask(503, "store_unavailable"), ask(503, "index_unavailable"), ask(0)) == (0, 0, 1, 1)
    with record.during("bundle changed"):
        assert (ask(200), ask(0), ask(503, "overloaded")) == (0, 1, 1)
    assert record.errors[0] == "/path: 503 store_unavailable during no fault"
    assert record.counts["/path", 503, "store_unavailable"] == 2
    assert {phase: len(found) for phase, found in record.latencies.items()} == {
        "no fault": 1,
        "Redis down": 1,
        "several faults": 1,  # what has just ended counts for a second
    }


def test_a_leak_is_seen_and_a_warm_up_is_not() -> None:
    # ten minutes of a process, one look each; it takes 100 MiB in the first two
    def life(leak: float, handles: int = 0) -> list[Sample]:
        sizes = [(60.0 * minute, 100.0 * (minute >= 2) + leak * minute) for minute in range(12)]
        return [Sample(time, 7, 200 + mib, 100 + mib, 10 + handles * (time > 500), 5) for time, mib in sizes]

    flat, leaking = watched(life(0)), watched(life(2))
    assert (flat["anonymous"], growth_errors(flat)) == ((200, 200, 200, pytest.approx(0)), [])
    # minutes 2 to 11: the means of 2, 3, 4 and of 9, 10, 11 are 14 MiB apart, the slope is 2 MiB a minute
    assert leaking["rss"] == (306, 313, 320, pytest.approx(120))
    assert growth_errors(leaking) == ["anonymous: grew from 206.0 to 220.0, expected at most 10.3 more"]
    assert growth_errors(watched(life(0, handles=5))) == ["files: grew from 10.0 to 15.0, expected at most 4.0 more"]
    assert watched(life(2)[:6]) == {}


def test_the_plan_has_every_fault_and_leaves_a_server_alone_at_last() -> None:
    faults = soak.plan(3, 1800)
    assert faults == soak.plan(3, 1800) != soak.plan(4, 1800)
    assert {lane: len(found) for lane, found in faults.items()} == {
        "server A": 10,
        "bundle of A": 60,
        "bundle of B": 60,
        "crowd at A": 40,
        "crowd at B": 40,
        "Redis": 20,
        "PostgreSQL": 20,
    }
    for lane, found in faults.items():
        assert {fault.kind for fault in found} == set(LANES[lane].kinds)
        assert [fault.time for fault in found] == sorted(fault.time for fault in found)
    assert max(fault.time for fault in faults["server A"]) < 600
