"""A user's mistake is one line on standard error that says what was expected and what was found, and status 1."""

import signal
import socket
import time
from pathlib import Path

import pytest

MISTAKES = {
    "prepare --events {tmp}/none.csv --out {tmp}/new": "none.csv: expected a Parquet or CSV file, found nothing there",
    "prepare --events {events} --out {tmp}/new": "expected a column 'user_id', found only customer, item_id, timestamp",
    "prepare --events {events} --items {tmp}/none.csv --out {tmp}/new": "none.csv: expected a Parquet or CSV file",
    "prepare --events {events} --out {tmp}/new --columns user=nobody": "user_id=nobody: expected one of the columns",
    "prepare --events {events} --out {tmp}/new --columns user": "--columns: expected pairs like user=customer,item=sku",
    "prepare --events {events} --out {tmp}/new --set splits=global_time": "splits='global_time'",
    "prepare --events {events} --out {tmp}/new --set split=thirds": "split='thirds'",
    "prepare --events {events} --out {run} --columns user=customer": "expected a new path or an earlier store",
    "prepare --events {events} --out {events}/new --columns user=customer": "events.parquet: File exists",
    "append {tmp}/none --events {events}": "none: expected a store directory, could not open it",
    "append {run} --events {events}": "expected a store of format 2, found run of 2",
    "append {store} --events {tmp}/none.csv": "none.csv: expected a Parquet or CSV file, found nothing there",
    "append {store} --events {events}": "column 'timestamp', row 1: expected a moment after the user's newest event",
    "append {store} --events {events} --late drop": "were left out: 400 (late)",
    "append {store} --events {events} --late never": "--late: expected refuse or drop, found 'never'",
    "append {store} --events {events} --valid-from 5": "valid_from and test_from must be given together",
    "compact {run} --out {tmp}/new": "expected a store of format 2, found run of 2",
    "compact {store} --out {run}": "expected a new path or an earlier store, found something else",
    "train {store} --out {tmp}/new --continue-from {store}": "expected a run of format 2, found store of 2",
    "train {store} --out {tmp}/new --continue-from {run}": "nothing that followed part 0 is a target of training",
    "train {tmp}/none --out {tmp}/new": "none: expected a store directory, found no manifest.json",
    "train {bundle} --out {tmp}/new": "expected a store of format 2, found bundle of 2",
    "train {store} --out {run}": "run: holds a run already; add --resume to continue it, or choose another --out",
    "train {store} --out {tmp}/new --set train.epoch=5": "train.epoch=5",
    "train {store} --out {tmp}/new --set train.epochs=many": "train.epochs='many'",
    "train {store} --out {tmp}/new --set epochs": "expected key=value",
    "train {store} --out {tmp}/new --config {tmp}/none.toml": "none.toml: expected a TOML file",
    "train {store} --out {run} --resume --set train.seed=7": "leave out --config and --set",
    "train {store} --out {tmp}/new --warm-start {store}": "expected a run",
    "plan {run}": "expected a store of format 2, found run of 2",
    "plan {store} --set train.epoch=5": "train.epoch=5",
    "plan {store} --measure 100000": "--measure 100000: expected fewer steps, an epoch of this store has",
    "plan {store} --memory 0": "--memory: expected a number above 0, found 0",
    "plan {store} --examples-per-second -1": "--examples-per-second: expected a number above 0, found -1",
    "plan {store} --set model.hashing.primes.colour=7": "model.hashing.primes",
    "tune {run} --out {tmp}/new --space {space}": "expected a store of format 2, found run of 2",
    "tune {store} --out {folder} --space {space}": "expected a new directory or that of a search, found something else",
    "tune {store} --out {tmp}/new --space {tmp}/none.toml": "none.toml: expected a TOML file",
    "tune {store} --out {tmp}/new --space {space} --set train.epoch=5": "train.epoch=5",
    "evaluate {store}": "expected a run of format 2, found store of 2",
    "evaluate {run} --split train": "expected 'valid' or 'test', found 'train'",
    "evaluate {run} --k 0": "expected numbers from 1 to 60 (the catalogue's size), found [0]",
    "evaluate {run} --k 10,many": "--k: expected numbers like 10,50,100, found '10,many'",
    "evaluate {run} --popularity 2": "popularity: popularity=2.0: Input should be less than or equal to 1",
    "evaluate {run} --against {tmp}/none": "none: expected a run directory",
    "evaluate {run} --pairs {tmp}/none.csv": "none.csv: expected a Parquet or CSV file",
    "export {store} --out {tmp}/new": "expected a run of format 2, found store of 2",
    "export {run} --out {store}": "expected a new path or an earlier bundle, found something else",
    "extend {run} --items {items} --out {tmp}/new": "expected a bundle of format 2, found run of 2",
    "extend {bundle} --items {tmp}/none.csv --out {tmp}/new": "none.csv: expected a Parquet or CSV file",
    "extend {bundle} --items {items} --out {tmp}/new": "column 'item_id', row 1: expected an item that is not in "
    "the catalogue yet, found 'item 1'",
    "extend {bundle} --items {events} --out {tmp}/new": "found besides customer, timestamp, shop; leave these out",
    "recommend {run} --out {tmp}/new": "expected a bundle of format 2, found run of 2",
    "recommend {bundle} --out {tmp}/new --k 0": "k=0: expected at least 1",
    "recommend {bundle} --out {tmp}/new --users {tmp}/none.csv": "none.csv: expected a Parquet or CSV file",
    "recommend {bundle} --out {tmp}/new --users {events}": "users: expected a column 'user_id', found only customer",
    "recommend {bundle} --out {tmp}/new --users {strangers}": "found 1 unknown, the first 'stranger'",
    "recommend {bundle} --out {folder}": "expected an empty folder or one of earlier parts, found",
    "recommend {bundle} --out {tmp}/new --engine ray": "--engine ray writes parts: expected a folder, such as --out",
    "recommend {bundle} --out {tmp}/new/ --engine spark": "--engine spark: expected local or ray",
    "serve {store}": "expected a bundle of format 2, found store of 2",
    "serve {bundle} --host nowhere.invalid": "nowhere.invalid",
    "demo --out {events}": "events.parquet",
}
IN_A_PROCESS = (
    "prepare --events {tmp}/none.csv --out {tmp}/new",
    "train {tmp}/none --out {tmp}/new",
    "recommend {run} --out {tmp}/new",
    "serve {store}",
)


@pytest.fixture(scope="session")
def fill(made, tmp_path_factory: pytest.TempPathFactory):
    """Arguments from their text."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "strangers.csv").write_text("user_id\nstranger\n")
    (made.folder / "space.toml").write_text('"model.num_interests" = [1, 2]\n')
    names = {name: made.folder / name for name in ("store", "run", "bundle")}
    names |= {"events": made.shop.events, "items": made.shop.items, "tmp": folder, "folder": made.folder}
    names |= {"strangers": folder / "strangers.csv", "space": made.folder / "space.toml"}
    return lambda text: [part.format_map(names) for part in text.split()]


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_one_line(text: str, fill, call) -> None:
    status, _, err = call(*fill(text))
    _check(status, err, MISTAKES[text])
    assert [path.name for path in Path(fill("{tmp}")[0]).iterdir()] == ["strangers.csv"]


def test_mistakes_in_processes_of_their_own(fill, start) -> None:
    processes = {text: start(*fill(text)) for text in IN_A_PROCESS}
    for text, process in processes.items():
        _, err = process.communicate(timeout=60)
        _check(process.returncode, err, MISTAKES[text])


def test_an_interrupt_is_one_line(fill, start, tmp_path: Path) -> None:
    process = start(*fill("train {store} --set train.epochs=100000 --out"), tmp_path / "run")
    ends = time.monotonic() + 60
    while not (tmp_path / "run" / "config.toml").exists() and time.monotonic() < ends:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("prismrec: interrupted\n")
    assert "Traceback" not in err


def test_a_port_that_is_taken(fill, call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, _, err = call(*fill("serve {bundle} --port"), taken.getsockname()[1])
    _check(status, err, "Address already in use")


@pytest.mark.parametrize(
    "text", ["prepare", "train {store}", "serve {bundle} --port 65536", "evaluate {run} --seed x", "fly"]
)
def test_wrong_usage_has_its_own_status(text: str, fill, call) -> None:
    status, out, err = call(*fill(text))
    assert (status, out) == (2, "")
    assert err.startswith("Usage: prismrec")


def _check(status: int, err: str, message: str) -> None:
    assert status == 1
    assert err.startswith("prismrec: ")
    assert err.count("\n") == 1
    assert message in err
