"""Processes killed at random moments: what is there is whole, what is done again ends as if nothing had happened.

A round is one kill. Moments are drawn from a seed: seconds within the time that the command takes undisturbed, or a
change of a file within those that it makes. Rounds follow each other in the same place, one to three before the command
may end, so that leftovers would pile up.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prismrec.artifact import read_manifest
from prismrec.data.store import Store
from prismrec.export.reader import open_bundle
from prismrec.model.run import load_run

from ..commands import Moment
from ..processes import Server
from .shop import SEED, Shop, share


class Rounds:
    """Kills of one kind of command."""

    def __init__(self, kind: str, shop: Shop) -> None:
        self.chance = random.Random(f"{SEED} {kind}")
        self._kind, self._commands, self._undisturbed = kind, shop.commands, shop.outcomes[kind]
        self._wanted, self.done = share(kind), 0

    def rows(self) -> Iterator[int]:
        """How often to kill before the command may end."""
        while self.done < self._wanted:
            yield min(self.chance.randint(1, 3), self._wanted - self.done)

    def kill(self, arguments: list[Any], check: Callable[[], None]) -> bool:
        """Run, kill and check; false if the process was faster."""
        by_time = self.chance.random() < 0.5
        seconds = self.chance.uniform(0, self._undisturbed.seconds)
        change = self.chance.randint(1, self._undisturbed.changes)
        moment = Moment(seconds=seconds) if by_time else Moment(change=change)
        outcome = self._commands(*arguments, moment=moment)
        try:
            assert outcome.status in (0, -9), outcome.said
            check()
        except BaseException as error:
            error.add_note(f"PRISMREC_FAULT_SEED={SEED}, {self._kind}, round {self.done + 1}: killed {moment}")
            raise
        self.done += outcome.killed
        return outcome.killed


@pytest.fixture
def rounds(request: pytest.FixtureRequest, shop: Shop, tried: Callable[[str, int], None]):
    made = Rounds(request.param, shop)
    yield made
    tried(f"kills of {request.param} (seed {SEED})", made.done)


def kinds(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("rounds", [kind], indirect=True)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@kinds("prepare")
def test_prepare(rounds: Rounds, shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "store"
    new, earlier = (read_manifest(shop.path(name), "store") for name in ("store", "earlier-store"))
    for kills in rounds.rows():
        shutil.rmtree(out, ignore_errors=True)
        allowed = [None, new]
        if rounds.chance.random() < 0.7:
            shutil.copytree(shop.path("earlier-store"), out)
            allowed = [earlier, new]

        def check(allowed: list[Any] = allowed) -> None:
            assert (Store.open(out).manifest if out.exists() else None) in allowed

        for _ in range(kills):
            rounds.kill(shop.prepare(out), check)
        shop.commands.succeed(*shop.prepare(out))
        assert Store.open(out).manifest == new
        assert names(tmp_path) == ["store"]


@kinds("append")
def test_append(rounds: Rounds, shop: Shop, tmp_path: Path) -> None:
    store = tmp_path / "store"
    before, after = (read_manifest(shop.path(name), "store") for name in ("store", "grown"))
    for kills in rounds.rows():
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(shop.path("store"), store)

        def check() -> None:
            assert Store.open(store).manifest in (before, after)

        for _ in range(kills):
            if Store.open(store).manifest == before:
                rounds.kill(shop.append(store), check)
        again = shop.commands(*shop.append(store))
        assert again.status == 0 or "expected a moment after the user's newest" in again.said  # all is there already
        assert Store.open(store).manifest == after
        assert names(store) == names(shop.path("grown"))
        assert names(store / "parts") == ["000001"]
        assert names(store / "parts" / "000001") == names(shop.path("grown") / "parts" / "000001")
        assert names(tmp_path) == ["store"]


@kinds("train")
def test_train(rounds: Rounds, shop: Shop, tmp_path: Path) -> None:
    out, expected = tmp_path / "run", shop.path("run")

    def check() -> None:
        if (out / "manifest.json").exists():
            load_run(out)

    for kills in rounds.rows():
        shutil.rmtree(out, ignore_errors=True)
        for _ in range(kills):
            rounds.kill(shop.train(out), check)
        shop.commands.succeed(*shop.train(out))
        assert load_run(out).manifest == read_manifest(expected, "run")
        (weights,) = expected.glob("model-*.safetensors")
        for name in ("metrics.jsonl", "config.toml", weights.name):
            assert (out / name).read_bytes() == (expected / name).read_bytes()
        assert names(out) == names(expected)


@kinds("export")
def test_export_over_a_bundle_that_is_served(rounds: Rounds, shop: Shop, tmp_path: Path) -> None:
    out, server_folder = tmp_path / "bundles" / "bundle", tmp_path / "server"
    server_folder.mkdir()
    new, earlier = (read_manifest(shop.path(name), "bundle") for name in ("bundle", "extended"))
    shutil.copytree(shop.path("extended"), out)
    events = f"--events={server_folder / 'events'}"
    with Server(out, server_folder, events) as server, server.client() as client:

        def ask() -> dict[str, Any]:
            response = client.post("/v1/recommend", json={"user_id": 4})
            assert response.status_code == 200
            return response.json()

        answer = ask()

        def check() -> None:
            assert open_bundle(out).manifest in (earlier, new)
            assert ask() == answer

        for kills in rounds.rows():
            for _ in range(kills):
                rounds.kill(shop.export(out), check)
            shop.commands.succeed(*shop.export(out))
            assert open_bundle(out).manifest == new
            assert names(out.parent) == ["bundle"]
            assert ask() == answer
            shop.commands.succeed(*shop.extend(out))
            assert open_bundle(out).manifest == earlier
