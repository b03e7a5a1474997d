"""Route rules: the table covers every route, and the server applies it to every route, method and kind of key."""

import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from service.app import create_app
from service.http.route_rules import ROUTE_RULES, Role, rule_of
from service.settings import ServeConfig
from tests.indexes.fakes import FakeEncoder, write_shop
from tests.service.conftest import wait_until_ready

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
SECRETS = {
    "none": None,
    "wrong": "wrong-key-wrong-key",
    "read": "read-key-read-key",
    "admin": "admin-key-admin-key",
}

OPEN = {"/", "/docs", "/openapi.json", "/static/{path}", "/livez", "/readyz"}
QUESTIONS = {
    *(
        "/retrieve",
        "/retrieve/batch",
        "/relation-type",
        "/relation-type/batch",
        "/validity",
        "/validity/batch",
    ),
    *("/explain", "/explain/heat-map", "/embeddings"),
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    # This is not the shared shop, because requests with an admin key delete items.
    shop = write_shop(tmp_path_factory.mktemp("guarded"))
    config = ServeConfig(index=shop.index, read_keys=SECRETS["read"], admin_keys=SECRETS["admin"])
    app = create_app(config, lambda *_: FakeEncoder())
    with TestClient(app, raise_server_exceptions=False, follow_redirects=False) as client:
        wait_until_ready(client)
        yield client


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Yield the method and path of every route, with path parameters in braces without their types."""
    for context in iter_route_contexts(app.routes):
        route = context.route
        if isinstance(route, Mount):
            yield "GET", f"{route.path}/{{path}}"
        else:
            assert isinstance(route, Route)
            for method in (route.methods or set()) - {"HEAD"}:
                yield method, re.sub(r":\w+}", "}", route.path)


def expected(method: str, path: str, kind: str) -> int | None:
    """Return the status of the rejection that the table requires, or None if the table allows the request.

    This is computed independently of the middleware under test.
    """
    method = "GET" if method == "HEAD" else method
    item = path == "/items/bulk" and method != "POST"  # this path also matches an item with the ID `bulk`
    declared = ROUTE_RULES.get((method, "/items/{item_id}" if item else path))
    access = Role.ADMIN if declared is None else declared.access
    if access is Role.OPEN or kind == "admin":
        return None
    if kind in ("none", "wrong"):
        return 401
    return 403 if access is Role.ADMIN else None


def test_every_route_of_the_app_is_in_the_table(guarded: TestClient) -> None:
    assert isinstance(guarded.app, FastAPI)
    found = set(routes(guarded.app))
    assert {("POST", "/retrieve"), ("GET", "/items/{item_id}/image"), ("GET", "/static/{path}")} <= found
    assert found - ROUTE_RULES.keys() == set()


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("method", METHODS)
def test_every_route_and_method_requires_the_declared_role(
    guarded: TestClient, method: str, kind: str
) -> None:
    headers = {"Authorization": f"Bearer {secret}"} if (secret := SECRETS[kind]) else {}
    for path in sorted(
        {path for _, path in ROUTE_RULES} | {"/nothing", "/admin/nothing", "/retrieve/nothing"}
    ):
        status = guarded.request(method, re.sub(r"{\w+}", "bib", path), headers=headers).status_code
        refused = status if status in (401, 403) else None
        assert refused == expected(method, path, kind), f"{method} {path} {kind}: {status}"
        assert status < 500


@pytest.mark.parametrize(
    "path", ["/items//", "//items", "/items/%2e%2e/docs", "/ITEMS", "/docs/", "/livez%00", "/items%2Fbib"]
)
def test_no_spelling_of_a_path_bypasses_the_key(guarded: TestClient, path: str) -> None:
    assert guarded.get(f"http://testserver{path}").status_code == 401


def test_only_the_listed_routes_are_open() -> None:
    assert {key for key, rule in ROUTE_RULES.items() if rule.access is Role.OPEN} == {
        ("GET", path) for path in OPEN
    }


def test_a_read_key_may_only_get_and_query() -> None:
    read = {key for key, rule in ROUTE_RULES.items() if rule.access is Role.READ}
    assert {path for method, path in read if method != "GET"} == QUESTIONS
    assert {method for method, _ in read} == {"GET", "POST"}


def test_routes_missing_from_the_table_require_an_admin_key() -> None:
    for method, path in [
        ("POST", "/new"),
        ("PATCH", "/items/bib"),
        ("GET", "/admin/x"),
        ("TRACE", "/"),
        ("GET", ""),
    ]:
        assert rule_of(method, path).access is Role.ADMIN


def test_an_item_id_does_not_change_the_rule() -> None:
    for name in ("bulk", "image", "a/b/c", "../admin", "{item_id}"):
        assert rule_of("GET", f"/items/{name}").access is Role.READ
        assert rule_of("PUT", f"/items/{name}").access is Role.ADMIN


def test_only_bulk_uploads_are_streamed() -> None:
    assert {path for (_, path), rule in ROUTE_RULES.items() if rule.streaming} == {"/items/bulk"}


def test_only_routes_that_open_or_write_an_index_are_slow() -> None:
    slow = {path for (_, path), rule in ROUTE_RULES.items() if rule.slow}
    assert slow == {"/items/bulk", "/relations/{relation_id}", "/admin/reload", "/admin/shadow"}
