"""From tables to recommendations and a running server, through the command line alone."""

import json
import signal
import subprocess
import threading
import urllib.request
from pathlib import Path
from typing import Any

import polars as pl
import pytest


@pytest.fixture(params=["text, Parquet", "integers, CSV, processes"])
def shop(request: pytest.FixtureRequest, shops: dict[str, Any]) -> Any:
    return shops[request.param]


def test_every_verb_succeeds_and_names_what_it_wrote(shop) -> None:
    assert {verb: said.status for verb, said in shop.said.items()} == dict.fromkeys(shop.said, 0)
    assert shop.said["prepare"].out == f"{shop.store}\n"
    assert "40 users, 60 items, 400 events" in shop.said["prepare"].err
    assert shop.said["train"].out == f"{shop.run}\n"
    assert shop.said["export"].out == f"{shop.bundle}\n"
    assert shop.said["recommend"] == (0, f"{shop.folder / 'recs.parquet'}: 40 users, 280 recommendations\n", "")


def test_evaluate_prints_tables_and_writes_the_report(shop) -> None:
    printed = shop.said["evaluate"].out
    assert "valid: 40 users, full catalogue" in printed
    assert "recall@20" in printed
    assert printed.endswith(f"{shop.run / 'report.html'}\n")
    report = json.loads((shop.run / "report.json").read_text())
    assert report["ks"] == [5, 20]
    assert "recall@5" in (shop.run / "report.html").read_text()


def test_recommendations_are_new_items_in_original_ids(shop) -> None:
    events, found = shop.shop.frame, pl.read_parquet(shop.folder / "recs.parquet")
    assert found.columns == ["user_id", "item_id", "rank", "score", "interest"]
    assert found.schema["user_id"] == events.schema["user_id"]
    assert found.schema["item_id"] == events.schema["item_id"]
    assert set(found["user_id"]) == set(events["user_id"])
    assert found.join(events, on=["user_id", "item_id"]).is_empty()
    for _, rows in found.group_by("user_id"):
        assert rows["rank"].to_list() == [1, 2, 3, 4, 5, 6, 7]
        assert rows["score"].is_sorted(descending=True)
        assert rows["item_id"].n_unique() == 7


def test_users_of_a_table_and_seen_items(made, call, tmp_path: Path) -> None:
    users, out = tmp_path / "users.csv", tmp_path / "recs.parquet"
    asked = made.shop.frame["user_id"].unique(maintain_order=True).to_frame()[3:5]
    asked.write_csv(users)
    done = call("recommend", made.bundle, "--users", users, "--k=60", "--include-seen", "--out", out)
    assert done.out.endswith("2 users, 120 recommendations\n")
    found = pl.read_parquet(out)["user_id"].unique(maintain_order=True)
    assert found.to_list() == asked["user_id"].to_list()


def test_warnings_are_plain_lines(made_in_processes, call_process, tmp_path: Path) -> None:
    """New users by their events; CSV with ISO dates; an item and a user that cannot be used."""
    users, out = tmp_path / "users.csv", tmp_path / "recs.parquet"
    users.write_text("user_id,item_id,timestamp\n7,3,2020-10-01T10:00:00Z\n7,999,2020-10-02\n8,999,2020-10-02\n")
    assert call_process("recommend", made_in_processes.bundle, "--users", users, "--out", out, "--k=4") == (
        0,
        f"{out}: 1 users, 4 recommendations\n",
        "ignored 2 given events of items that are not in the catalogue\n"
        "1 users without events in the catalogue got no recommendations\n",
    )
    assert pl.read_parquet(out)["user_id"].to_list() == [7] * 4


def test_sigterm_ends_a_server_well(made_in_processes, start) -> None:
    status, said = _serve_and_end(made_in_processes, start, signal.SIGTERM)
    assert status == 0
    assert "Application shutdown complete" in said


def test_an_interrupt_ends_a_server_as_any_verb(made, start) -> None:
    status, said = _serve_and_end(made, start, signal.SIGINT)
    assert status == 130
    assert said.endswith("\nprismrec: interrupted\n")


def _serve_and_end(shop, start, by: signal.Signals) -> tuple[int, str]:
    """Ask a server for what `recommend` wrote, and end it by a signal; gives its status and what it said."""
    server = start("serve", shop.bundle, "--port=0")
    try:
        address, before = _address(server)
        user = shop.shop.frame["user_id"][0]
        answer = _post(f"{address}/v1/recommend", {"user_id": user, "k": 7})
        expected = pl.read_parquet(shop.folder / "recs.parquet").filter(user_id=user)
        assert [item["item_id"] for item in answer["items"]] == expected["item_id"].to_list()
        assert answer["items"][0]["title"] == f"Title {expected['item_id'][0]}"
        server.send_signal(by)
        said = before + server.communicate(timeout=20)[1]
    finally:
        server.kill()
    assert "Traceback" not in said
    return server.returncode, said


def _address(server: "subprocess.Popen[str]") -> tuple[str, str]:
    """The address a server says it has, and all it said until then."""
    lines: list[str] = []
    assert server.stderr is not None
    timer = threading.Timer(60, server.kill)
    timer.start()
    for line in server.stderr:
        lines.append(line)
        if "served at " in line:
            timer.cancel()
            return line.partition("served at ")[2].partition(",")[0], "".join(lines)
    raise AssertionError("".join(lines))


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.loads(response.read())
