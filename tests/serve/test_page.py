"""The explorer as people use it: a real Chromium, a real server, by keyboard, on a phone and in the dark."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from ..processes import Server
from .conftest import ITEMS, NUM_ITEMS, NUM_USERS, with_store

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
HOSTILE = [
    "<img src=x onerror='window.harmed=1'>",
    "\u202egnirts \u2067",
    "日本の茶 🍵",
    "مكتبة",
    "&amp;<b>bold</b>",
    "a" * 300,
]
"""Titles that are markup, change direction, or have no place to break."""
_TITLES = "[...document.querySelectorAll('ol.ranked > li bdi:first-child')].map(found => found.textContent)"
Opener = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("needs Chromium on the PATH")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with Server(bundle, folder, f"--events={folder / 'events'}") as running:
        yield running


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[Opener]:
    """Opens a page that must ask nobody but the server, and must not find anything to complain about."""
    contexts, complaints, hosts = [], [], set()

    def open_page(path: str = "/", url: str | None = None, **options: object) -> Page:
        context = browser.new_context(reduced_motion="reduce", **{"viewport": DESK, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: hosts.add("/".join(request.url.split("/")[:3])))
        page.goto((url or server.url) + path)
        return page

    open_page.expected = "nothing"
    yield open_page
    for context in contexts:
        context.close()
    assert [complaint for complaint in complaints if open_page.expected not in complaint] == []
    assert len(hosts) <= 1


def _titles(page: Page) -> list[str]:
    """Of what is recommended, by rank."""
    rows = page.locator("ol.ranked > li")
    ranked = sorted((int(row.get_attribute("value")), row.locator("bdi").first.inner_text()) for row in rows.all())
    return [title for _, title in ranked]


def _shown(page: Page, items: int) -> list[str]:
    """Titles, when so many are there."""
    expect(page.locator("ol.ranked > li")).to_have_count(items)
    return _titles(page)


def test_a_user_is_found_by_keyboard(open_page: Opener) -> None:
    page = open_page()
    expect(page.locator("#summary")).to_contain_text("Choose somebody")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the interests")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("combobox", name="Find a user")).to_be_focused()
    page.keyboard.type("1")
    expect(page.get_by_role("option")).to_have_count(3)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option").nth(1)).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page.locator("#summary")).to_have_text(
        "User 10: 4 interests in the 8 events that the model reads, 19 items."
    )
    expect(page.get_by_role("listbox")).to_have_count(0)
    assert page.url.endswith("?user=10")
    page.reload()
    expect(page.locator("#summary")).to_contain_text("User 10: ")


def test_interests_are_beams_and_cards(open_page: Opener, server: Server) -> None:
    page = open_page("/?user=4")
    expect(page.locator(".card")).to_have_count(4)
    expect(page.locator("#prism .beam")).to_have_count(4)
    with server.client() as client:
        answer = client.post("/v1/recommend", json={"user_id": 4}).json()
    assert len([text for text in page.locator("#prism text").all_text_contents() if text.endswith("%")]) == 4
    for interest, card in zip(answer["interests"], page.locator(".card").all(), strict=True):
        assert card.locator("h3 bdi").inner_text() == " · ".join(each["category"] for each in interest["categories"])
        assert card.locator("p").first.inner_text().startswith(f"{100 * interest['share']:.0f} %")
        formed = card.locator("ol.plain").first.locator("bdi").all_inner_texts()
        assert formed[::2] == [event["title"] for event in interest["events"]]
    assert _titles(page) == [item["title"] for item in answer["items"]]


def test_settings_act_at_once(open_page: Opener) -> None:
    page = open_page("/?user=4")
    first = _shown(page, 20)
    page.get_by_role("slider", name="Items").fill("8")
    assert _shown(page, 8) == first[:8]
    page.get_by_label("turns").check()
    expect(page.locator(".card").filter(has=page.locator("ol.ranked"))).to_have_count(4)  # each interest has its turn
    page.get_by_label("best score").check()
    expect(page.locator("ol.ranked > li bdi").first).to_be_visible()
    page.get_by_role("slider", name="Diversity").fill("1")
    expect(page.locator("#diversity-shown")).to_have_text("1")
    page.wait_for_function(f"first => {_TITLES}.some(title => !first.includes(title))", arg=first[:8])
    page.get_by_role("slider", name="Diversity").fill("0")
    page.get_by_role("slider", name="Items").fill("30")
    page.wait_for_function(f"{_TITLES}.length > 8")
    left = len(_titles(page))
    page.get_by_label("also what they had").check()
    assert len(_shown(page, NUM_ITEMS)) > left


def test_what_if(open_page: Opener) -> None:
    page = open_page("/?user=5")
    before = _shown(page, 20)
    events = page.locator("#history > li")
    expect(events).to_have_count(7)
    title = events.first.locator("bdi").first.inner_text()
    events.first.get_by_role("button", name="Remove").click()
    expect(page.locator("#history > .gone")).to_have_count(1)
    expect(page.locator(".moved").first).to_be_visible()
    expect(page.locator("#summary")).to_contain_text("6 events")
    page.get_by_role("button", name=f"Put back {title}").click()
    expect(page.locator("#history > .gone")).to_have_count(0)
    assert _shown(page, 20) == before

    page.get_by_role("combobox", name="Add an event").fill("item 29")
    page.get_by_role("option", name="The item 29").click()
    expect(events.first).to_contain_text("The item 29")
    expect(events.first).to_contain_text("added")
    expect(page.locator("#summary")).to_contain_text("8 events")
    page.get_by_role("button", name="Undo all changes").click()
    expect(events).to_have_count(7)
    assert _shown(page, 20) == before


def test_what_was_removed_and_is_added_again_counts(open_page: Opener) -> None:
    """The last two events of user 5 are as far apart as one that is added is from the last."""
    page = open_page("/?user=5")
    expect(page.locator("#history bdi").first).to_have_text("The item 0")
    page.get_by_role("button", name="Remove The item 0").click()
    expect(page.locator("#summary")).to_contain_text("6 events")
    page.get_by_role("combobox", name="Add an event").fill("item 0")
    page.get_by_role("option", name="The item 0").click()
    expect(page.locator("#summary")).to_contain_text("7 events")
    expect(page.locator("#history > .gone")).to_have_count(1)


def test_nobody_becomes_somebody(open_page: Opener) -> None:
    page = open_page()
    page.get_by_role("button", name="Start with nobody").click()
    expect(page.locator("#summary")).to_contain_text("nothing is known, so these are the most popular items")
    expect(page.locator("#prism")).to_be_hidden()
    page.get_by_role("combobox", name="Add an event").fill("item 12")
    page.keyboard.press("Enter")
    expect(page.locator("#summary")).to_contain_text("in the 1 event that the model reads")
    expect(page.locator("#prism")).to_be_visible()


def test_an_item_and_whose_interests_come_closest(open_page: Opener) -> None:
    page = open_page()
    page.get_by_role("combobox", name="Find an item").fill("the item 7")
    page.keyboard.press("Enter")
    item = page.locator("#item")
    expect(item.get_by_role("heading", name="The item 7")).to_be_visible()
    expect(item.locator("ol").nth(0).locator("li")).to_have_count(10)
    expect(item.locator("ol").nth(1).locator("li")).to_have_count(NUM_USERS)
    neighbour = item.locator("ol").nth(0).get_by_role("button").first.inner_text()
    item.locator("ol").nth(0).get_by_role("button").first.click()
    expect(item.get_by_role("heading", name=neighbour, exact=True)).to_be_visible()
    fan = item.get_by_role("button", name="User ").first
    user = fan.inner_text()
    fan.click()
    expect(page.locator("#summary")).to_contain_text(f"User {user}: ")


def test_the_last_item_asked_for_is_shown(open_page: Opener) -> None:
    page = open_page("/?user=4")
    first, second = _shown(page, 20)[:2]
    held: list[Route] = []
    page.route("**/explorer/item?*", lambda route: held.append(route))
    page.locator("ol.ranked > li[value='1'] button").click()
    expect(page.locator("#item")).to_contain_text("Comparing it")
    with page.expect_event("requestfailed"):  # nobody waits for its answer
        page.locator("ol.ranked > li[value='2'] button").click()
    expect(page.locator("#item")).to_contain_text("Comparing it")
    held[-1].continue_()
    expect(page.locator("#item h3")).to_have_text(second)
    assert first != second


def test_enter_that_ends_a_composition_chooses_nothing(open_page: Opener) -> None:
    """With an input method, as for Japanese, Enter takes the characters it offers."""
    page = open_page("/?user=4")
    field = page.get_by_role("combobox", name="Find an item")
    field.fill("item 7")
    expect(page.get_by_role("option")).to_have_count(1)
    page.evaluate(
        "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', isComposing: true }))"
    )
    expect(field).to_have_value("item 7")
    page.keyboard.press("Enter")
    expect(page.locator("#item h3")).to_have_text("The item 7")


def test_settings_are_what_they_say_after_going_back(open_page: Opener) -> None:
    page = open_page("/?user=4")
    page.get_by_role("slider", name="Items").fill("8")
    _shown(page, 8)
    page.goto("about:blank")
    page.go_back()
    items = page.get_by_role("slider", name="Items").input_value()
    expect(page.locator("#k-shown")).to_have_text(items)
    assert len(_shown(page, int(items))) == int(items)


def test_the_map_and_the_time_line_are_drawn(open_page: Opener) -> None:
    page = open_page("/?user=4")
    expect(page.locator("#legend button")).to_have_count(5)
    page.locator("ol.ranked button").first.click()
    expect(page.locator("#item h3")).to_be_visible()
    counts = page.evaluate(
        "() => Object.fromEntries(echarts.getInstanceByDom(document.getElementById('map')).getOption()"
        ".series.map(({ id, data }) => [id, data.length]))"
    )
    by_category = {f"category {number}": NUM_ITEMS // 5 for number in range(5)}
    assert counts == {**by_category, "recommended": 20, "interests": 4, "item": 1}
    for chart in ("map", "timeline"):
        painted = page.evaluate(
            "id => { const c = document.querySelector(`#${id} canvas`); return new Set(new Uint32Array("
            "c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size; }",
            chart,
        )
        assert painted > 10  # colours
    title, place = page.evaluate(
        "() => { const c = echarts.getInstanceByDom(document.getElementById('map'));"
        "const { item } = c.getOption().series.find(s => s.id === 'recommended').data[3];"
        "return [item.title, c.convertToPixel({ xAxisIndex: 0, yAxisIndex: 0 }, item.position)]; }"
    )
    page.locator("#map").click(position={"x": place[0], "y": place[1]})
    expect(page.locator("#item h3")).to_have_text(title)


@pytest.fixture(scope="module")
def hostile_server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hostile")
    titles = HOSTILE * (NUM_ITEMS // len(HOSTILE))
    items = ITEMS.with_columns(title=pl.Series(titles), category=pl.Series(titles[1:] + titles[:1]))
    with Server(with_store(bundle, folder / "bundle", items), folder) as running:
        yield running


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_titles_in_any_script_are_text(open_page: Opener, hostile_server: Server, size: dict[str, int]) -> None:
    page = open_page("/?user=4", url=hostile_server.url, viewport=size)
    shown = _shown(page, 20)
    assert set(shown) <= set(HOSTILE)
    page.locator("ol.ranked > li[value='1'] button").click()
    expect(page.locator("#item h3")).to_have_text(shown[0])
    assert page.locator("main img, main b").count() == 0
    assert page.evaluate("window.harmed") is None
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_it_is_accessible_and_fits(open_page: Opener, size: dict[str, int], scheme: str, tmp_path: Path) -> None:
    page = open_page("/?user=11", viewport=size, color_scheme=scheme, has_touch=size is PHONE)
    page.locator("ol.ranked button").first.click()
    page.get_by_role("button", name="Remove").first.click()
    expect(page.locator(".gone")).to_have_count(1)
    expect(page.locator("#item h3")).to_be_visible()
    expect(page.locator("#legend button")).to_have_count(5)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(251, 251, 253)", "dark": "rgb(20, 21, 26)"}[scheme]
    picture = page.screenshot(path=tmp_path / "page.png", full_page=True)
    width, height = (int.from_bytes(picture[start : start + 4]) for start in (16, 20))
    assert (width, height) == (size["width"], page.evaluate("document.documentElement.scrollHeight"))
    # cards stand side by side where there is room, and under each other where there is none
    tops = {round(card.bounding_box()["y"]) for card in page.locator(".card").all()}
    assert len(tops) == (1 if size is DESK else 4)


def test_it_is_accessible_before_somebody_is_chosen(open_page: Opener) -> None:
    page = open_page()
    expect(page.locator("#legend button")).to_have_count(5)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_a_server_that_is_gone_is_said_and_asked_again(open_page: Opener) -> None:
    open_page.expected = "ERR_FAILED"  # the browser's own line
    page = open_page("/?user=4")
    before = _shown(page, 20)
    page.route("**/explorer/user", lambda route: route.abort())
    page.get_by_role("slider", name="Items").fill("5")
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached.")
    assert _shown(page, 20) == before
    page.unroute("**/explorer/user")
    page.get_by_role("button", name="Try again").click()
    assert _shown(page, 5) == before[:5]
    expect(page.get_by_role("alert")).to_be_empty()


def test_an_unknown_user_of_an_old_address(open_page: Opener) -> None:
    open_page.expected = "status of 422"
    page = open_page("/?user=four")
    expect(page.get_by_role("alert")).to_contain_text("user_id: expected an integer, found 'four'")


def test_the_key_is_asked_for(open_page: Opener, bundle: Path, tmp_path: Path) -> None:
    open_page.expected = "status of 401"
    with Server(bundle, tmp_path, key="secret") as server:
        page = open_page("/?user=4", url=server.url)
        expect(page.get_by_role("alert")).to_contain_text("expected the key")
        page.get_by_label("This server asks for its key").fill("wrong")
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_role("alert")).to_contain_text("expected the key")
        page.get_by_label("This server asks for its key").fill("secret")
        page.get_by_role("button", name="Open").click()
        assert len(_shown(page, 20)) == 20
        expect(page.get_by_label("This server asks for its key")).to_be_hidden()
        page.reload()
        assert len(_shown(page, 20)) == 20
