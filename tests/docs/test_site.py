"""Tests that the site builds without a warning, and that its pages load nothing from other hosts."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.service.cli_options import verbs

from .documents import ROOT

LOADING = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
"""Tags whose targets a browser loads with the page, and the attribute that names the target."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make site` does. A broken link or anchor, or a page that is not in the menu, is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    return folder


class Loaded(HTMLParser):
    """Targets that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get(LOADING.get(tag, ""))
        if target is not None and dict(attrs).get("rel") not in ("canonical", "next", "prev"):
            self.targets.append(target)


def text_of(page: Path) -> str:
    """Return the text of a page, without tags."""
    return re.sub(r"<[^>]+>", "", page.read_text("utf-8"))


def test_pages_and_styles_load_only_files_of_the_site(site: Path) -> None:
    loaded = Loaded()
    for page in site.rglob("*.html"):
        loaded.feed(page.read_text("utf-8"))
    assert len(loaded.targets) > 100
    styles = "".join(path.read_text("utf-8") for path in site.rglob("*.css"))
    urls = re.findall(r"url\(['\"]?(?!data:)([^'\")]+)|@import +['\"]([^'\"]+)", styles)
    targets = {*loaded.targets, *(first or second for first, second in urls)}
    assert [target for target in targets if re.match(r"(https?:)?//", target)] == []


def test_every_verb_and_option_is_on_the_page_of_the_command_line(site: Path) -> None:
    text = text_of(site / "command-line.html")
    assert [verb.name for verb in verbs() if verb.name not in text] == []
    shown = [one for verb in verbs() for one in verb.options if one.help != "==SUPPRESS=="]
    assert [one.names for one in shown if one.names not in text] == []


def test_client_methods_arguments_and_errors_are_on_one_page(site: Path) -> None:
    headings = set(re.findall(r'id="([\w.]+)"', (site / "python.html").read_text("utf-8")))
    assert {
        "rcml.Client",
        "rcml.Client.retrieve_batch",
        "rcml.AsyncClient",
        "service.client.endpoints.Retrieval",
        "service.client.errors.Overloaded",
    } <= headings


def test_requests_show_their_routes_as_titles(site: Path) -> None:
    page = (site / "api.html").read_text("utf-8")
    assert 'filename">POST /retrieve<' in page
    assert "```" not in text_of(site / "api.html")
