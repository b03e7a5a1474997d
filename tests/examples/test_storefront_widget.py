"""Tests of the page that calls `/retrieve`, in Chromium if it is installed."""

import functools
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rcml import Client
from service.settings import ServeConfig
from tests.conftest import Road
from tests.docs.documents import ROOT
from tests.service.servers import served

PAGE = ROOT / "examples" / "storefront_widget.html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


class Quiet(SimpleHTTPRequestHandler):
    """File server without a log."""

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the shop's pages."""
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def shop(folder: Path) -> Iterator[str]:
    """Serve the pages of a shop and yield its origin."""
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def service(road: Road, shop: str, folder: Path) -> Iterator[str]:
    """Serve the index to pages of the shop, one of which has the widget."""
    with served(ServeConfig(index=road.folder / "index", cors_origins=(shop,))) as url:
        text = PAGE.read_text("utf-8").replace('data-server="http://127.0.0.1:8000"', f'data-server="{url}"')
        (folder / PAGE.name).write_text(text, "utf-8")
        yield url


def shown(address: str, profile: Path) -> str:
    """Return the page as Chromium shows it after its scripts have run and its requests are answered."""
    assert CHROMIUM is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    waiting = ["--virtual-time-budget=60000", "--dump-dom"]
    return subprocess.run(
        [CHROMIUM, *options, *waiting, address], capture_output=True, text=True, check=True
    ).stdout


def section_of(page: str) -> str:
    """Return the opening tag of the widget."""
    found = re.search(r'<section class="goes-with"[^>]*>', page)
    assert found is not None
    return found[0]


def test_page_has_at_most_100_lines_and_names_only_the_own_host() -> None:
    text = PAGE.read_text("utf-8")
    assert len(text.splitlines()) <= 100
    assert re.findall(r"https?://[^\"'/ ]+", text) == ["http://127.0.0.1:8000"]
    assert "innerHTML" not in text


@needs_browser
def test_page_shows_what_the_service_retrieves(shop: str, service: str, tmp_path: Path) -> None:
    page = shown(f"{shop}/{PAGE.name}?item=i0007", tmp_path)
    with Client(service) as client:
        relations = client.relations().relations[1:5]
        results = client.retrieve(item_id="i0007", relation=relations[0].relation_id, k=6).results
    buttons = re.findall(r'<button value="([^"]+)"[^>]*>([^<]+)<', page)
    assert buttons == [(one.relation_id, one.name) for one in relations]
    titles = re.findall(r'<a href="/products/[^"]+"><img [^>]+>([^<]+)</a>', page)
    assert titles == [result.item.title for result in results]
    assert re.findall(r'<img src="([^"]+)"', page) == [
        f"{service}{result.item.image_url}" for result in results
    ]
    assert "hidden" not in section_of(page)


@needs_browser
def test_address_of_the_page_cannot_name_another_server(shop: str, service: str, tmp_path: Path) -> None:
    page = shown(f"{shop}/{PAGE.name}?item=i0007&server=http://127.0.0.1:9", tmp_path)
    assert re.findall(r'<img src="(http://[^/]+)', page) == [service] * 6


@needs_browser
@pytest.mark.parametrize("item", ["no-such-item", "%3Cb%3E"])
def test_page_hides_the_widget_after_an_error(shop: str, service: str, tmp_path: Path, item: str) -> None:
    page = shown(f"{shop}/{PAGE.name}?item={item}", tmp_path)
    assert "hidden" in section_of(page)
    assert "/products/" not in page.partition("<script")[0]
