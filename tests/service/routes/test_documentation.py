"""API documentation: it works offline, is complete, and its examples succeed."""

import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.http.openapi import with_examples
from service.routes import documentation
from service.schemas.problem import Problem
from service.settings import ServeConfig
from tests.indexes.fakes import write_shop
from tests.service.conftest import served

OPERATIONS: dict[str, tuple[str, ...]] = {
    "/retrieve": ("post",),
    "/retrieve/batch": ("post",),
    "/relation-type": ("post",),
    "/relation-type/batch": ("post",),
    "/validity": ("post",),
    "/validity/batch": ("post",),
    "/explain": ("post",),
    "/explain/heat-map": ("post",),
    "/embeddings": ("post",),
    "/items": ("get",),
    "/categories": ("get",),
    "/items/{item_id}": ("get", "delete", "put"),
    "/items/{item_id}/image": ("get",),
    "/items/bulk": ("post",),
    "/relations": ("get", "post"),
    "/relations/{relation_id}": ("get", "delete"),
    "/admin/reload": ("post",),
    "/admin/shadow": ("get", "post", "delete"),
    "/livez": ("get",),
    "/readyz": ("get",),
    "/info": ("get",),
    "/metrics": ("get",),
}


QUESTIONS = (
    "/retrieve",
    "/relation-type",
    "/relation-type/batch",
    "/validity",
    "/validity/batch",
    "/explain",
    "/explain/heat-map",
    "/embeddings",
)


def operations() -> list[tuple[str, str]]:
    """Return all pairs of a path and a method."""
    return [(path, method) for path, methods in OPERATIONS.items() for method in methods]


@pytest.fixture(scope="module")
def described(client: TestClient) -> Any:
    return client.get("/openapi.json").json()


def test_docs_page_loads_only_existing_local_files(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "//" not in re.sub(r"<!--.*?-->", "", page)
    loaded = re.findall(r"(?:src|href)=\"(.*?)\"|url: '(.*?)'", page)
    assert len(loaded) == 5
    for path in ("".join(groups) for groups in loaded):
        assert client.get(f"/{path}").status_code == 200


def test_style_sheet_loads_no_external_resources(client: TestClient) -> None:
    style = client.get("/static/swagger-ui/swagger-ui.css").text
    assert set(re.findall(r"url\(\"?(\w+):", style)) == {"data"}
    assert "@import" not in style


def test_swagger_ui_uses_no_external_validator(client: TestClient) -> None:
    assert '"validatorUrl": null' in client.get("/docs").text


def test_describes_every_operation(described: Any) -> None:
    assert {path: tuple(methods) for path, methods in described["paths"].items()} == OPERATIONS
    for path, method in operations():
        operation = described["paths"][path][method]
        assert operation["summary"]
        assert operation["description"]
        assert operation["tags"]


def test_describes_every_field(described: Any) -> None:
    for name, schema in described["components"]["schemas"].items():
        for field, of in schema.get("properties", {}).items():
            assert "description" in of or "$ref" in of or "const" in of, f"{name}.{field}"


def test_declares_every_error_as_a_problem_document_with_a_valid_example(described: Any) -> None:
    for path, method in operations():
        for status, response in described["paths"][path][method]["responses"].items():
            if int(status) >= 400:
                content = response["content"]["application/problem+json"]
                assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
                assert Problem.model_validate(content["example"]).status == int(status)


def test_every_request_example_succeeds(client: TestClient, described: Any) -> None:
    for path in QUESTIONS:
        content = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for example in content["examples"].values():
            assert client.post(path, json=example["value"]).status_code == 200


def test_example_of_an_item_id_names_an_existing_item(client: TestClient, described: Any) -> None:
    for path in ("/items/{item_id}", "/items/{item_id}/image"):
        [parameter] = described["paths"][path]["get"]["parameters"]
        assert client.get(path.format(item_id=parameter["example"])).status_code == 200


def test_admin_request_examples_succeed(client: TestClient, described: Any) -> None:
    for path in ("/admin/reload", "/admin/shadow"):
        content = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for example in content["examples"].values():
            assert client.post(path, json=example["value"]).status_code == 200
    assert client.delete("/admin/shadow").status_code == 204


def test_example_of_a_relation_id_names_an_existing_relation(client: TestClient, described: Any) -> None:
    [parameter] = described["paths"]["/relations/{relation_id}"]["get"]["parameters"]
    assert client.get(f"/relations/{parameter['example']}").status_code == 200


def test_example_for_too_large_k_equals_the_real_response(client: TestClient, described: Any) -> None:
    declared = described["paths"]["/retrieve"]["post"]["responses"]["422"]["content"]
    body = {"item_id": "bib", "relation": "gardeners", "k": 10**9}
    assert client.post("/retrieve", json=body).json() == declared["application/problem+json"]["example"]


def test_document_is_written_once_for_each_version_of_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = [0]

    def counted(*arguments: Any) -> Any:
        written[0] += 1
        return with_examples(*arguments)

    monkeypatch.setattr(documentation, "with_examples", counted)
    with served(ServeConfig(index=write_shop(tmp_path).index)) as client:
        first = client.get("/openapi.json").json()
        assert [client.get("/openapi.json").json() for _ in range(3)] == [first] * 3
        assert written == [1]
        name = next(iter(first["paths"]["/items/{item_id}"]["get"]["parameters"]))["example"]
        assert client.delete(f"/items/{name}").status_code == 204
        assert client.get("/openapi.json").json() != first
        assert written == [2]


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip, deflate, br", "gzip"),
        ("br, *;q=0.1", "gzip"),
        ("GZIP;q=0.5", "gzip"),
        ("identity", None),
        ("gzip;q=0, *", None),
        ("gzip;q=0.000", None),
        ("", None),
    ],
)
def test_document_is_compressed_if_the_client_accepts_gzip(
    client: TestClient, described: Any, accepted: str, encoding: str | None
) -> None:
    answer = client.get("/openapi.json", headers={"Accept-Encoding": accepted})
    assert answer.headers.get("content-encoding") == encoding
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.json() == described


def test_compressed_document_is_an_eighth_of_the_size(client: TestClient) -> None:
    sizes = [
        int(client.get("/openapi.json", headers={"Accept-Encoding": one}).headers["content-length"])
        for one in ("gzip", "identity")
    ]
    assert sizes[0] < sizes[1] / 8


@pytest.mark.parametrize("accepted", ["gzip", "identity"])
def test_known_document_is_not_sent_again(client: TestClient, accepted: str) -> None:
    tag = client.get("/openapi.json", headers={"Accept-Encoding": accepted}).headers["etag"]
    for known in (tag, f'"other", W/{tag}', "*"):
        headers = {"Accept-Encoding": accepted, "If-None-Match": known}
        answer = client.get("/openapi.json", headers=headers)
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    headers = {"Accept-Encoding": accepted, "If-None-Match": '"other"'}
    assert client.get("/openapi.json", headers=headers).status_code == 200


def test_forms_of_the_document_have_different_entity_tags(client: TestClient) -> None:
    tags = {
        client.get("/openapi.json", headers={"Accept-Encoding": accepted}).headers["etag"]
        for accepted in ("gzip", "identity")
    }
    assert len(tags) == 2
