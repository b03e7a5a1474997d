"""Schemathesis sends requests to every operation of the OpenAPI document and checks the responses against it.

The document supplies the operations, parameters and bodies, so every new route is covered automatically.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import GenerationMode
from schemathesis.generation.meta import TestPhase
from schemathesis.python import asgi
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.adapter import OpenApiResponses
from schemathesis.specs.openapi.adapter.parameters import OpenApiParameter
from schemathesis.specs.openapi.adapter.security import OpenApiSecurityParameters
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    unsupported_method,
)
from schemathesis.specs.openapi.schemas import OpenApiSchema
from starlette.types import Receive, Scope, Send

from service.app import create_app
from service.http.openapi import document
from service.settings import ServeConfig
from tests.indexes.fakes import FakeShop, write_shop
from tests.service.campaigns import HEADERS, Answer, application, assert_sound

from .mutants import KNOWN

Case = schemathesis.Case[
    APIOperation[OpenApiParameter, OpenApiResponses, OpenApiSecurityParameters, OpenApiSchema]
]


class App:
    """Stand-in for the application under test.

    Pytest collects the operations before the application is started.
    """

    def __init__(self) -> None:
        self.started: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.started(scope, receive, send)


def sensible(value: Any, name: str = "") -> Any:
    """Return a valid value with IDs from the shop and only one field of each group of alternatives.

    Randomly drawn IDs would almost never exist in the shop. Null values are left out.
    """
    if isinstance(value, dict):
        kept = {key: sensible(part, key) for key, part in value.items() if part is not None}
        for ways in (("item_id", "item_ids", "text", "picture"), ("relation", "relations")):
            for other in [way for way in ways if way in kept][1:]:
                del kept[other]
        if "text" in kept or "picture" in kept:  # only some similarities support these queries
            kept.pop("similarity", None)
        return kept
    if isinstance(value, list):
        return [sensible(part, name) for part in value]
    if isinstance(value, str) and name in KNOWN:
        return KNOWN[name][len(value) % len(KNOWN[name])]
    return value


@schemathesis.serializer("application/x-ndjson")
def line(context: schemathesis.SerializationContext, value: Any) -> bytes:
    """Serialise a bulk upload of one line."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


schema = schemathesis.openapi.from_dict(document(create_app(ServeConfig(index=Path("none")))))
schema.app = App()

NOT_CHECKED = [positive_data_acceptance, unsupported_method, allow_header_conformance]
"""Checks that do not apply to this API.

The server may reject a request that matches its schema, because rules between fields are described only in prose.
A path may accept a method that the document does not list for it, because a generated ID may turn the path into the
path of another operation.
"""

asked: Counter[str] = Counter()
"""Number of cases by operation and status."""


@pytest.fixture(scope="module")
def worded_shop(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    return write_shop(tmp_path_factory.mktemp("worded-shop"), token_store=True)


@pytest.fixture
def session(worded_shop: FakeShop, tmp_path: Path) -> Iterator[asgi.ASGIClient]:
    """Yield a client of a started application with its own shop.

    Bodies may be long, because a 413 response would hide other errors.
    """
    schema.app.started = application(worded_shop, tmp_path, most_bytes=2**26)
    with asgi.get_client(schema.app) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.01)
        yield client


def is_valid(case: Case) -> bool:
    """Return whether a case is a random request that the document allows."""
    return (
        case.meta is not None
        and case.meta.generation.mode is GenerationMode.POSITIVE
        and case.meta.phase.name is TestPhase.FUZZING
    )


def ask(case: Case, session: asgi.ASGIClient) -> None:
    """Send a case and check the response against the document.

    The server may still reject a request that the document allows. For example, the rule that a request has exactly
    one of `item_id` and `text` is described only in prose.
    """
    if is_valid(case):
        case.path_parameters = sensible(case.path_parameters)
        if isinstance(case.body, dict):
            query = {"text": ""} if case.operation.path == "/retrieve" else {}
            case.body = sensible({**query, **case.body})
    response = case.call(headers=HEADERS, session=session)
    asked[f"{case.operation.label} {int(response.status_code)}"] += 1
    assert_sound(
        Answer(response.status_code, response.headers.get("content-type", [""])[0], response.content)
    )
    # A bulk upload reports the result of each line, so it also accepts invalid lines.
    by_line = case.operation.path == "/items/bulk"
    # The parts of an upload are sent as bytes without types, so a value of the wrong type may become a valid part.
    in_parts = case.media_type == "multipart/form-data"
    untyped = [negative_data_rejection] if by_line or in_parts else []
    case.validate_response(response, headers=HEADERS, excluded_checks=[*NOT_CHECKED, *untyped])


def examples(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )


@schema.parametrize()
@examples(10)
def test_responses_match_the_openapi_document(case: Case, session: asgi.ASGIClient) -> None:
    ask(case, session)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@schema.parametrize()
@examples(1_000)
def test_many_more_responses_match_the_openapi_document(case: Case, session: asgi.ASGIClient) -> None:
    ask(case, session)


@pytest.mark.soak
def test_at_least_ten_thousand_cases_were_sent() -> None:
    assert asked.total() >= 10_000
    assert sum(count for name, count in asked.items() if name.endswith(" 200")) >= 1_000
