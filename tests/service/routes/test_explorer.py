"""Explorer page at `/`: it is complete and uses no other server. `test_explorer_journeys.py` uses it in a browser."""

import re

import pytest
from fastapi.testclient import TestClient

from service.app import STATIC_DIR

FILES = sorted(path.name for path in (STATIC_DIR / "explorer").iterdir())


def test_root_serves_the_explorer(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>rcml explorer</title>" in page.text


def test_policy_allows_only_this_server_and_pictures_in_memory(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert policy == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def test_every_file_of_the_explorer_is_reached_from_the_page_and_served(client: TestClient) -> None:
    reached: set[str] = set()
    ahead = ["index.html"]
    while ahead:
        name = ahead.pop()
        reached.add(name)
        text = client.get("/" if name == "index.html" else f"/static/explorer/{name}").text
        found = re.findall(r'(?:src|href)="static/explorer/([^"]+)"|from "\./([^"]+)"', text)
        ahead += {"".join(pair) for pair in found} - reached
    assert sorted(reached) == FILES


@pytest.mark.parametrize("name", FILES)
def test_explorer_refers_to_no_other_host_and_sets_no_markup(client: TestClient, name: str) -> None:
    answer = client.get(f"/static/explorer/{name}")
    assert answer.status_code == 200
    text = re.sub(r"http://www\.w3\.org/2000/svg", "", answer.text)
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"(?m)(^|\s)//\s.*$", "", text))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(| style=", text)


@pytest.mark.parametrize("name", FILES)
def test_lines_have_at_most_120_characters(name: str) -> None:
    lines = (STATIC_DIR / "explorer" / name).read_text("utf-8").splitlines()
    assert [line for line in lines if len(line) > 120] == []
