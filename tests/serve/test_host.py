"""Changing the bundle that is served, while requests are in progress."""

import asyncio
import contextlib
import ctypes
import gc
import json
import shutil
import weakref
from pathlib import Path

import httpx
import polars as pl
import pytest

from prismrec.artifact import replacing_artifact
from prismrec.errors import ArtifactError
from prismrec.export.reader import KIND, open_bundle
from prismrec.serve.app import create_app
from prismrec.serve.event_log import EventLog
from prismrec.serve.events import StoreUnavailableError
from prismrec.serve.host import Host
from prismrec.serve.metrics import Metrics
from prismrec.serve.opening import open_host
from prismrec.serve.service import Service
from prismrec.serve.settings import ServeConfig

from .conftest import ITEMS, START, make_bundle, with_store


@pytest.fixture(scope="module")
def bundles(bundle: Path, other_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models of the same store, and others with ids of text, another column of context and other categories."""
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "first": bundle,
        "second": other_bundle,
        "text": with_store(bundle, folder / "text", user_id=pl.format("user {}", "user_id")),
        "town": make_bundle(folder / "town", town=pl.lit(1)),
        "numbers": with_store(bundle, folder / "numbers", ITEMS.with_columns(category=pl.lit(7))),
        "lists": with_store(bundle, folder / "lists", ITEMS.with_columns(category=pl.concat_list("category"))),
        "none": make_bundle(folder / "none", ITEMS.drop("category")),
    }


class Site:
    """A link to a bundle, and what serves it."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.link = folder / "current"
        self.link.symlink_to(bundle)
        self.host = open_host(self.link, ServeConfig(), Metrics())
        self.app = create_app(self.host, ServeConfig(), Metrics(), key="sesam")

    def point_to(self, bundle: Path) -> None:
        other = self.link.with_name("next")
        other.symlink_to(bundle)
        other.replace(self.link)

    def client(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://test", headers={"x-api-key": "sesam"})


@pytest.fixture
def site(tmp_path: Path, bundles: dict[str, Path]):
    site = Site(tmp_path, bundles["first"])
    yield site
    site.host.close()


def _model(bundle: Path) -> str:
    return json.loads((bundle / "manifest.json").read_text())["files"]["model.safetensors"]["sha256"][:12]


def test_another_bundle_takes_over_and_the_first_comes_back(site: Site, bundles: dict[str, Path]) -> None:
    async def change() -> None:
        async with site.client() as client:
            query = {"user_id": 4, "k": 5}
            first = (await client.post("/v1/recommend", json=query)).json()
            event = {"item_id": "item 3", "timestamp": START + 9000}
            await client.post("/v1/events", json={"user_id": 900, "events": [event]})
            site.point_to(bundles["second"])
            assert (await client.post("/v1/admin/reload")).json()["model"] == _model(bundles["second"])
            second = (await client.post("/v1/recommend", json=query)).json()
            assert second["items"] != first["items"]
            remembered = (await client.post("/v1/recommend", json={"user_id": 900})).json()
            assert remembered["fallback"] is None  # events outlive the bundle
            assert (await client.post("/v1/admin/rollback")).json()["model"] == _model(bundles["first"])
            assert (await client.post("/v1/recommend", json=query)).json() == first
            assert (await client.post("/v1/admin/rollback")).json()["model"] == _model(bundles["second"])

    asyncio.run(change())


def test_a_bundle_opened_again_is_not_the_one_before(site: Site, bundles: dict[str, Path]) -> None:
    async def change() -> None:
        async with site.client() as client:
            assert (await client.post("/v1/admin/reload")).json()["model"] == _model(bundles["first"])
            assert (await client.post("/v1/admin/rollback")).status_code == 409  # there was no other
            site.point_to(bundles["second"])
            for _ in range(2):
                assert (await client.post("/v1/admin/reload")).json()["model"] == _model(bundles["second"])
            assert (await client.post("/v1/admin/rollback")).json()["model"] == _model(bundles["first"])

    asyncio.run(change())


def _replace(bundle: Path, new: Path) -> None:
    """Put another bundle in the place of one, as `export` does."""
    with replacing_artifact(bundle, KIND) as temporary:
        shutil.copytree(new, temporary, dirs_exist_ok=True)


def test_a_bundle_replaced_in_its_place_does_not_come_back_as_another(
    site: Site, bundles: dict[str, Path], tmp_path: Path
) -> None:
    place = tmp_path / "place"
    shutil.copytree(bundles["first"], place)

    async def change() -> None:
        async with site.client() as client:

            async def is_refused() -> bool:
                answer = await client.post("/v1/admin/rollback")
                assert (answer.status_code, answer.json()["error"]["code"]) == (409, "bundle_unusable")
                assert "/place: expected the bundle served before, found another one" in answer.text
                return (await client.get("/health")).json()["model"] == _model(bundles["second"])

            site.point_to(place)
            assert (await client.post("/v1/admin/reload")).status_code == 200
            _replace(place, bundles["second"])
            asked = {"user_id": 4, "k": 5}
            before = (await client.post("/v1/recommend", json=asked)).json()
            assert (await client.post("/v1/admin/reload")).json()["model"] == _model(bundles["second"])
            assert (await client.post("/v1/recommend", json=asked)).json() != before
            assert await is_refused()
            assert (await client.post("/v1/admin/reload")).status_code == 200  # the same again
            assert await is_refused()
            _replace(place, bundles["first"])  # it is back
            assert (await client.post("/v1/admin/rollback")).json()["model"] == _model(bundles["first"])
            assert (await client.post("/v1/recommend", json=asked)).json() == before

    asyncio.run(change())


def test_a_bundle_that_was_replaced_after_the_change_does_not_come_back(
    site: Site, bundles: dict[str, Path], tmp_path: Path
) -> None:
    place = tmp_path / "place"
    shutil.copytree(bundles["first"], place)

    async def change() -> None:
        async with site.client() as client:
            for bundle in (place, bundles["second"]):
                site.point_to(bundle)
                await client.post("/v1/admin/reload")
            _replace(place, bundles["lists"])
            assert (await client.post("/v1/admin/rollback")).status_code == 409
            shutil.rmtree(place)
            assert (await client.post("/v1/admin/rollback")).status_code == 409
            assert (await client.get("/health")).json()["model"] == _model(bundles["second"])
            assert (await client.post("/v1/recommend", json={"user_id": 4})).status_code == 200

    asyncio.run(change())


def test_a_bundle_whose_place_is_taken_while_it_is_read_is_not_served(bundles: dict[str, Path], tmp_path: Path) -> None:
    """Some of its files would be those of the other."""
    place = tmp_path / "place"
    shutil.copytree(bundles["first"], place)

    def open_service(path: Path) -> Service:
        bundle = open_bundle(path)
        _replace(path, bundles["second"])
        return Service(bundle, bundle.index, log, ServeConfig(), Metrics())

    with (
        contextlib.closing(EventLog(tmp_path / "events", ["shop"])) as log,
        pytest.raises(ArtifactError, match="/place: expected a bundle that stays, but another took its place"),
    ):
        Host(place, open_service)


def test_no_request_fails_while_bundles_change(site: Site, bundles: dict[str, Path]) -> None:
    async def ask(client: httpx.AsyncClient, done: asyncio.Event) -> list[int]:
        statuses = []
        while not done.is_set():
            statuses.append((await client.post("/v1/recommend", json={"user_id": 4})).status_code)
        return statuses

    async def change() -> None:
        async with site.client() as client:
            done = asyncio.Event()
            asking = [asyncio.ensure_future(ask(client, done)) for _ in range(4)]
            for name in ("second", "first", "second"):
                site.point_to(bundles[name])
                assert (await client.post("/v1/admin/reload")).json()["model"] == _model(bundles[name])
            done.set()
            statuses = [status for each in await asyncio.gather(*asking) for status in each]
            assert set(statuses) == {200}
            assert len(statuses) > 20

    asyncio.run(change())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text", "expected user_id of type Int64 as served until now, found String; start a server of its own"),
        ("town", "expected the columns of context served until now, shop, found shop, town; start a server of its own"),
        ("numbers", "expected category of type String as served until now, found Int32; start a server of its own"),
        ("none", "expected category of type String as served until now, found None; start a server of its own"),
        ("damaged", "does not match its checksum"),
        ("gone", "expected a bundle directory, found no manifest.json"),
    ],
)
def test_what_cannot_be_served_changes_nothing(
    site: Site, bundles: dict[str, Path], tmp_path: Path, name: str, message: str
) -> None:
    if name == "damaged":
        shutil.copytree(bundles["second"], tmp_path / name)
        (tmp_path / name / "config.toml").write_text("popularity = 0.5")
    site.point_to(bundles.get(name, tmp_path / name))

    async def change() -> None:
        async with site.client() as client:
            answer = await client.post("/v1/admin/reload")
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "bundle_unusable")
            assert message in answer.json()["error"]["message"]
            assert (await client.get("/health")).json()["model"] == _model(bundles["first"])
            assert (await client.post("/v1/recommend", json={"user_id": 4})).status_code == 200
            assert (await client.post("/v1/admin/rollback")).status_code == 409

    asyncio.run(change())


def test_categories_in_lists_are_no_others(site: Site, bundles: dict[str, Path]) -> None:
    async def change() -> None:
        async with site.client() as client:
            site.point_to(bundles["lists"])
            assert (await client.post("/v1/admin/reload")).status_code == 200
            query = {"user_id": 4, "only_categories": ["category 2"]}
            items = (await client.post("/v1/recommend", json=query)).json()["items"]
            assert {tuple(item["category"]) for item in items} == {("category 2",)}

    asyncio.run(change())


@pytest.mark.parametrize("key", [None, ""])
def test_without_a_key_nobody_changes_the_bundle_over_http(bundle: Path, tmp_path: Path, key: str | None) -> None:
    host = open_host(bundle, ServeConfig(), Metrics(), events=str(tmp_path))

    async def change() -> int:
        transport = httpx.ASGITransport(create_app(host, ServeConfig(), Metrics(), key))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.post("/v1/admin/reload")).status_code

    assert asyncio.run(change()) == 404
    host.close()


def test_only_bundles_are_served(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="expected a bundle"):
        open_host(bundle / "store", ServeConfig(), Metrics(), events=str(tmp_path))


def test_what_was_served_is_let_go_even_after_a_database_was_away(
    bundles: dict[str, Path], tmp_path: Path, own_redis_server
) -> None:
    """An error of Redis is a cycle of frames; a collector that has seen little of late does not look for it."""
    host = open_host(bundles["first"], ServeConfig(), Metrics(), events=own_redis_server.url)
    before = weakref.ref(host.current.service)

    async def change() -> None:
        queries = host.current.service.sample_queries(1)
        own_redis_server.kill()
        with pytest.raises(StoreUnavailableError):
            await host.current.recommend(queries)
        own_redis_server.start()
        await host.reload()

    gc.disable()
    try:
        asyncio.run(change())
        assert before() is None
    finally:
        gc.enable()
        host.close()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_freed_memory_is_given_back(site: Site) -> None:
    """Blocks that are freed stay with glibc as long as one above them is used, unless somebody asks."""
    libc, size, number = ctypes.CDLL(None), 2**16, 1000
    libc.malloc.restype = ctypes.c_void_p
    blocks = [ctypes.c_void_p(libc.malloc(ctypes.c_size_t(size))) for _ in range(number)]
    for block in blocks:
        libc.memset(block, 1, ctypes.c_size_t(size))
    for block in blocks[:-1]:
        libc.free(block)
    held = _anonymous_bytes()
    asyncio.run(site.host.reload())
    assert held - _anonymous_bytes() > 0.8 * size * number
    libc.free(blocks[-1])


def _anonymous_bytes() -> int:
    """Memory of this process that is not of files."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
