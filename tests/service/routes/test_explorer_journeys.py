"""What people do with the explorer, in a headless Chromium on a desktop and a phone, in light and dark.

The tests are skipped without the extra `browser` or without Chromium (`apt install chromium`). The accessibility checks
need axe-core, which is not part of rcml: `npm pack axe-core`, unpack it, and set AXE_CORE to its axe.min.js.
"""

import os
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

from service.settings import ServeConfig
from tests.indexes.fakes import RELATIONS, write_shop
from tests.service.servers import served

playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra `browser`")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
AXE = os.environ.get("AXE_CORE")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt install chromium)")

SCREENS = [(1280, 900, "light"), (1280, 900, "dark"), (390, 844, "light"), (390, 844, "dark")]
PATIENCE_MS = 120_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    shop = write_shop(tmp_path_factory.mktemp("explored"), token_store=True)
    with served(ServeConfig(index=shop.index)) as address:
        yield address


@pytest.fixture(params=SCREENS, ids=[f"{width}-{scheme}" for width, _, scheme in SCREENS])
def page(request: pytest.FixtureRequest, browser: Any, address: str) -> Iterator[Any]:
    """Open an empty page that fails the test if a request leaves the host or a script has an error."""
    width, height, scheme = request.param
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, base_url=address
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if "Security Policy" in said.text else None)
    yield page
    context.close()
    assert {urlsplit(url).netloc for url in asked if not url.startswith(("blob:", "data:"))} == {
        urlsplit(address).netloc
    }
    assert errors == []


def opened(page: Any, query: str = "") -> Any:
    """Open the explorer and wait for its results."""
    page.goto(f"/{query}")
    page.wait_for_selector("#columns:not([aria-busy]) .result")
    return page


def titles(page: Any, side: str = "left") -> list[str]:
    found: list[str] = page.locator(f"#{side} .result b").all_inner_texts()
    return found


def seen(page: Any, selector: str) -> str:
    return str(page.locator(selector).inner_text())


def no_sideways_scrolling(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def test_shows_two_relations_whose_common_results_are_joined_by_lines(page: Any) -> None:
    opened(page, "?item=bib&left=gardeners&right=new-parents")
    both = set(titles(page, "left")) & set(titles(page, "right"))
    assert page.locator("#lines path").count() >= len(both) > 0
    assert "of the 10 best results are the same under both" in seen(page, "#summary")
    assert page.locator("#left-relation option:checked").inner_text() == "Gardeners"
    assert no_sideways_scrolling(page)


MOVEMENT = """async () => {
    const { movements, joined, movementText, summary } = await import("/static/explorer/movement.js");
    const of = (...ids) => ids.map((id) => ({ item: { item_id: id, title: id } }));
    const far = Array.from({ length: 12 }, (_, place) => `far-${place}`);
    const moved = movements(of("a", "b", "c", "d", "only"), of("b", "a", ...far, "d", "c"));
    return {
        there: moved.left.map((result) => result.there),
        shown: moved.right.length,
        joined: joined(moved).map((result) => [result.item.item_id, result.rank, result.there]),
        left: moved.left.map((result) => movementText(result, "left", 16)),
        right: moved.right.slice(0, 3).map((result) => movementText(result, "right", 5)),
        summary: summary(moved, "Garden", "Office"),
        alike: summary(movements(of("a", "b"), of("a", "b")), "Garden", "Office"),
        apart: summary(movements(of("a"), of("b")), "Garden", "Office"),
        same: summary(movements(of("a"), of("a")), "Garden", "Garden"),
    };
}"""


def test_movements_are_those_computed_by_hand(page: Any) -> None:
    opened(page)
    assert page.evaluate(MOVEMENT) == {
        "there": [2, 1, 16, 15, None],
        "shown": 10,
        "joined": [["a", 1, 2], ["b", 2, 1]],
        "left": ["→ 2nd", "→ 1st", "→ 16th", "→ 15th", "→ below 16th"],
        "right": ["▲ 1 from 2nd", "▼ 1 from 1st", "from below 5th"],
        "summary": "2 of the 10 best results are the same under both. Of these, “a” moves furthest: from 1st to 2nd.",
        "alike": "2 of the 2 best results are the same under both. They keep their ranks.",
        "apart": "None of the 1 best results is the same under both. What is related to this item depends on the "
        "relation.",
        "same": "Both sides show the same relation. Choose another one on either side.",
    }


WRITTEN = """async () => {
    const { ordinal, percent, plural } = await import("/static/explorer/elements.js");
    return [[1, 2, 3, 4, 11, 12, 13, 21, 102, 111].map(ordinal), [0, 0.004, 0.5, 0.994, 0.996, 1].map(percent),
        [plural(1, "user"), plural(1234, "user")]];
}"""


def test_numbers_are_written_for_people(page: Any) -> None:
    opened(page)
    assert page.evaluate(WRITTEN) == [
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"],
        ["0%", "under 1%", "50%", "99%", "over 99%", "100%"],
        ["1 user", "1,234 users"],
    ]


def test_shows_the_probability_first_and_the_cosine_beside_it(page: Any) -> None:
    opened(page, "?item=bib&left=gardeners&right=same-item")
    figures = page.locator("#left .figures").first
    figures.locator(".bar").wait_for()
    assert "%" in figures.locator(".probability").inner_text()
    assert figures.bounding_box()["y"] < figures.locator(".cosine").bounding_box()["y"]
    assert page.locator("#right .uncalibrated").count() == page.locator("#right .figures").count()


def test_finds_an_item_by_words_with_the_keyboard_alone(page: Any) -> None:
    opened(page)
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "words":
            break
    page.keyboard.type("strip mu")
    page.wait_for_selector("#found .option >> nth=2")
    assert page.locator("#found .option b").all_inner_texts()[:2] == ["Red striped mug", "Blue striped mug"]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.locator("#words").get_attribute("aria-activedescendant") == "found-1"
    page.keyboard.press("Enter")
    page.locator("#chosen h2", has_text="Blue striped mug").wait_for()
    page.wait_for_url("**item=blue-mug**")


def test_words_that_no_item_has_become_a_new_item(page: Any) -> None:
    opened(page)
    page.fill("#words", "velvet crown")
    page.wait_for_selector("#found .none")
    assert seen(page, "#found .none") == "No item has all of these words."
    page.locator("#found .option").click()
    page.wait_for_url("**text=velvet+crown**")
    page.wait_for_selector("#columns:not([aria-busy]) .result")
    assert "velvet crown" in seen(page, "#chosen")
    assert "known by its words" in seen(page, "#chosen")


def test_browses_categories(page: Any) -> None:
    opened(page)
    page.click("#browse")
    page.locator(".chip", has_text="Tools").click()
    page.locator(".tile", has_text="Steel trowel").click()
    page.locator("#chosen h2", has_text="Steel trowel").wait_for()


def test_a_picture_and_words_are_a_new_item(page: Any, tmp_path: Path) -> None:
    opened(page)
    page.click("#new-item")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    page.set_input_files("#picture-file", str(broken))
    page.locator(".says", has_text="broken.png cannot be read as a picture").wait_for()
    content = BytesIO()
    Image.new("RGB", (900, 600), (200, 30, 30)).save(content, "PNG")
    page.set_input_files(
        "#picture-file", {"name": "p.png", "mimeType": "image/png", "buffer": content.getvalue()}
    )
    page.wait_for_selector(".preview img")
    page.fill("#new-words", "Striped mug. Kitchen")
    page.locator("#describe button.main").click()
    page.locator("#chosen", has_text="known by its words and picture").wait_for()
    page.wait_for_selector("#columns:not([aria-busy]) .probability .bar")
    page.locator("#left .result").first.click()
    page.wait_for_selector("#why .types")
    assert page.locator("#why .heat").count() == 2


def test_a_dropped_and_a_pasted_picture_are_a_new_item(page: Any) -> None:
    opened(page)
    for event, data in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        page.evaluate(
            """async ([name, data]) => {
                const canvas = Object.assign(document.createElement("canvas"), { width: 9, height: 9 });
                canvas.getContext("2d").fillRect(0, 0, 9, 9);
                const blob = await new Promise((resolve) => canvas.toBlob(resolve));
                const transfer = new DataTransfer();
                transfer.items.add(new File([blob], "p.png", { type: "image/png" }));
                const event = new Event(name, { bubbles: true, cancelable: true });
                Object.defineProperty(event, data, { value: transfer });
                document.body.dispatchEvent(event);
            }""",
            [event, data],
        )
        page.wait_for_selector("#describe[open] .preview img")
        page.keyboard.press("Escape")


LONG = """(selector) => {
    for (const element of document.querySelectorAll(selector)) element.textContent = "Category/".repeat(12);
    return [...document.querySelectorAll(selector)].every(
        (element) => element.getBoundingClientRect().right <= innerWidth
    );
}"""
"""Replace the texts of elements by a path of categories without blanks; tell whether all are within the screen."""


def test_long_categories_stay_within_the_screen(page: Any) -> None:
    opened(page, "?item=bib&left=gardeners&right=new-parents")
    assert page.evaluate(LONG, ".choice .text, .result b")
    assert no_sideways_scrolling(page)
    page.locator("#left .result").first.click()
    page.wait_for_selector("#why .types")
    assert page.evaluate(LONG, "#why .words, #why .seen h3")


def test_explains_a_pair_with_attention_validity_and_all_relations(page: Any) -> None:
    opened(page, "?item=bib&left=gardeners&right=new-parents")
    row = page.locator("#right .result").first
    row.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#why .types")
    assert "the threshold is 50%" in seen(page, "#why .verdict")
    assert page.locator("#why mark").count() > 1
    assert page.locator("#why .heat rect").count() > 1
    assert page.locator("#why .types tbody tr").count() == len(RELATIONS) - 1
    assert "why=" in page.url
    page.keyboard.press("Escape")
    page.wait_for_url(lambda url: "why=" not in url)
    assert page.locator("#why").is_hidden()
    assert row.evaluate("one => one === document.activeElement")


def test_a_link_reproduces_the_view(page: Any) -> None:
    opened(page, "?item=cot")
    page.select_option("#left-relation", label="Gardeners")
    page.wait_for_url("**left=gardeners**")
    page.select_option("#right-relation", "none")
    page.wait_for_url(lambda url: parse_qs(urlsplit(url).query, keep_blank_values=True)["right"] == [""])
    page.select_option("#by", "TT")
    page.wait_for_url("**by=TT**")
    page.wait_for_selector("#columns:not([aria-busy]) .result")
    before = (page.url, titles(page, "left"), titles(page, "right"))
    page.reload()
    page.wait_for_selector("#columns:not([aria-busy]) .result")
    assert (page.url, titles(page, "left"), titles(page, "right")) == before
    assert seen(page, "#chosen h2") == "Wooden cot"
    page.go_back()
    page.wait_for_url(lambda url: "by=" not in url)
    playwright.expect(page.locator("#by")).to_have_value("AVG", timeout=PATIENCE_MS)


def test_own_words_are_a_relation(page: Any) -> None:
    opened(page, "?item=bib&left=gardeners&right=new-parents")
    page.select_option("#right-relation", "words")
    page.keyboard.type("Striped, and worn by sailors.")
    page.keyboard.press("Enter")
    page.wait_for_url("**right-words=Striped**")
    page.wait_for_selector("#columns:not([aria-busy]) #right .uncalibrated")


def test_adds_a_relation_in_words_and_removes_it(page: Any) -> None:
    page.goto("/?view=relations")
    page.wait_for_selector(".cards .card")
    assert page.locator(".card h3").all_inner_texts()[1:] == [
        "Gardeners", "Worn together / office", "New parents", "Look-alikes",
    ]  # fmt: skip
    assert page.locator("[data-relation=new-parents] .sample").count() == 2
    page.fill("#relation-name", "Sailors' stripes")
    page.fill("#relation-words", "Striped, and worn by sailors.")
    page.locator(".add button").click()
    page.wait_for_selector("[data-relation=sailors-stripes]")
    page.locator("[data-relation=sailors-stripes] button", has_text="See results").click()
    page.wait_for_selector("#columns:not([aria-busy]) .result")
    assert page.locator("#left-relation option:checked").inner_text() == "Sailors' stripes"
    page.click("#to-relations")
    page.locator("[data-relation=sailors-stripes] button", has_text="Remove").click()
    page.wait_for_selector("[data-relation=sailors-stripes]", state="detached")


def test_tells_what_is_wrong_and_tries_again(page: Any) -> None:
    page.goto("/?item=unicorn")
    page.wait_for_selector(".problem")
    assert "no item with the ID “unicorn”" in seen(page, ".problem")
    page.route("**/retrieve", lambda route: route.abort())
    page.goto("/?item=bib&left=gardeners&right=new-parents")
    page.wait_for_selector("#left .problem")
    assert "cannot be reached" in seen(page, "#left .problem")
    page.unroute("**/retrieve")
    page.locator("#left .problem button").click()
    page.wait_for_selector("#columns:not([aria-busy]) .result")


def test_tells_why_items_cannot_be_searched(page: Any) -> None:
    opened(page)
    refusal = {"detail": "An earlier version of rcml built this index."}
    page.route("**/items?words=*", lambda route: route.fulfill(status=409, json=refusal))
    page.fill("#words", "mug")
    page.wait_for_selector("#found .none")
    assert seen(page, "#found") == refusal["detail"]


def test_works_below_the_prefix_of_a_proxy_and_without_tokens(browser: Any, tmp_path: Path) -> None:
    config = ServeConfig(index=write_shop(tmp_path).index, root_path="/search")
    with served(config) as address:
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda one: asked.append(urlsplit(one.url).path))
        page.goto(f"{address}/search/?item=bib")
        page.wait_for_selector("#columns:not([aria-busy]) .bar")
        assert page.locator("#left option[value=words]").count() == 0
        assert (
            page.locator("#chosen img").evaluate("async (one) => (await one.decode(), one.naturalWidth)") == 8
        )
        page.click("#to-relations")
        page.wait_for_selector(".cards .card")
        assert page.locator(".add").count() == 0
        assert "without --token-store" in seen(page, "#relations")
        assert [path for path in asked if not path.startswith("/search/")] == []
        page.close()


def test_waits_while_the_index_is_being_opened(page: Any) -> None:
    page.route("**/relations", lambda route: route.fulfill(status=503, json={"detail": "Being opened."}))
    page.goto("/")
    page.wait_for_selector(".waiting")
    assert seen(page, "#notice") == "The index is being opened…"
    page.unroute("**/relations")
    page.wait_for_selector("#columns:not([aria-busy]) .result")


def test_asks_for_the_key_of_a_server_that_requires_one(browser: Any, tmp_path: Path) -> None:
    key = "rcml_" + "k" * 32
    with served(ServeConfig(index=write_shop(tmp_path).index, read_keys=(key,))) as address:
        page = browser.new_page(base_url=address)
        page.goto("/")
        for typed in ("rcml_" + "x" * 32, key):
            page.wait_for_selector("#key[open]")
            page.fill("#key input", typed)
            page.keyboard.press("Enter")
        opened(page)
        page.locator("#left img[src^='blob:']").first.wait_for()
        assert page.locator("#forget").is_visible()
        page.close()


def test_key_that_no_request_can_carry_is_not_accepted(browser: Any, tmp_path: Path) -> None:
    key = "rcml_" + "k" * 32
    with served(ServeConfig(index=write_shop(tmp_path).index, read_keys=(key,))) as address:
        page = browser.new_page(base_url=address)
        page.goto("/")
        page.wait_for_selector("#key[open]")
        page.fill("#key input", "rcml_kk…kk")
        page.keyboard.press("Enter")
        assert page.locator("#key input:invalid").count() == 1
        page.fill("#key input", f" {key} ")
        page.keyboard.press("Enter")
        opened(page)
        page.close()


STATES = {
    "compared": ("?item=bib&left=gardeners&right=new-parents", "#columns:not([aria-busy]) .bar"),
    "explained": ("?item=bib&left=gardeners&right=new-parents&why=cot&side=right", "#why .types"),
    "relations": ("?view=relations", ".cards .card"),
    "wrong": ("?item=unicorn", ".problem"),
}


@pytest.mark.skipif(AXE is None, reason="set AXE_CORE to the axe.min.js of npm's axe-core")
@pytest.mark.parametrize("state", [*STATES, "found", "browsing", "describing"])
def test_axe_finds_nothing_serious(page: Any, state: str) -> None:
    link, shown = STATES.get(state, STATES["compared"])
    page.goto(f"/{link}")
    page.wait_for_selector(shown)
    if state == "found":
        page.fill("#words", "mug")
        page.wait_for_selector("#found .option")
    if state == "browsing":
        page.click("#browse")
        page.wait_for_selector(".tile")
    if state == "describing":
        page.click("#new-item")
    page.evaluate(Path(AXE or "").read_text())
    found = page.evaluate("axe.run()")["violations"]
    serious = [(one["id"], [node["target"] for node in one["nodes"]]) for one in found
               if one["impact"] in ("serious", "critical")]  # fmt: skip
    assert serious == []
