"""Malformed requests: JSON, uploads, pictures and HTTP framing, compared with a plain FastAPI application."""

import asyncio
import gc
import json
import random
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from annotated_types import MaxLen
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, FailFast
from pydantic.fields import FieldInfo

from model.data.pictures.images import decode_picture
from model.errors import PictureError
from service.http.limits import BodyLimits, Deadlines, Limits
from service.http.openapi import document
from service.http.server import Server
from service.requests.json_route import JsonRoute, read
from service.schemas.fields import Request
from tests.indexes.fakes import FakeShop, write_shop
from tests.model.data.pictures.test_images import mutant as picture_mutant
from tests.model.data.pictures.test_images import seeds as pictures
from tests.service.campaigns import HEADERS, Answer, Direct, application, assert_sound, directly
from tests.yard import yards

from .mutants import Mutator, upload
from .test_connection import LIMITS, QUICK, Running, problem, running, statuses, talk
from .test_connection import mutant as framing_mutant

PATIENCE = 600.0
"""Seconds after which a response counts as missing, even on a slow machine."""

MEGABYTE = 2**20


@pytest.fixture(scope="module")
def worded_shop(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    return write_shop(tmp_path_factory.mktemp("worded-shop"), token_store=True)


@pytest.fixture
def app(worded_shop: FakeShop, tmp_path: Path) -> FastAPI:
    return application(worded_shop, tmp_path)


def body_models(app: FastAPI) -> Iterator[tuple[str, str, type[BaseModel]]]:
    """Yield the method, path and model of every route that reads JSON through `JsonRoute`."""
    for context in iter_route_contexts(app.routes):
        route: Any = getattr(context, "original_route", context)
        if isinstance(route, JsonRoute):
            hints = get_type_hints(route.endpoint)
            hints.pop("return", None)
            model = next(
                kind for kind in hints.values() if isinstance(kind, type) and issubclass(kind, BaseModel)
            )
            for method in route.methods or ():
                yield method, route.path, model


def plain(app: FastAPI) -> FastAPI:
    """Return an application that reads the same bodies in the standard FastAPI way."""
    control = FastAPI()
    for method, path, model in body_models(app):

        def answer(body: Any) -> dict[str, str]:
            return {}

        answer.__annotations__["body"] = model
        control.add_api_route(path, answer, methods=[method])
    return control


async def assault(
    app: FastAPI, described: dict[str, Any], count: int, check: Callable[[Answer], None]
) -> Counter[int]:
    """Send `count` mutated requests of an OpenAPI document and return the number of responses by status."""
    seen: Counter[int] = Counter()
    async with directly(app) as direct:
        for method, path, body, media_type in islice(Mutator(described, seed=1), count):
            async with asyncio.timeout(PATIENCE):
                answer = await direct.ask(method, path, body, media_type)
            check(answer)
            seen[int(answer.status)] += 1
    return seen


@pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")
@pytest.mark.parametrize(
    "count", [1_000, pytest.param(100_000, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])]
)
def test_mutated_requests_are_answered_or_rejected_but_plain_fastapi_fails(app: FastAPI, count: int) -> None:
    described = document(app)
    seen = asyncio.run(assault(app, described, count, assert_sound))
    assert seen.total() == count
    assert {200, 400, 404, 415, 422} <= set(seen)
    assert seen[422] > count / 5

    failed = asyncio.run(assault(plain(app), described, count, lambda answer: None))[500]
    assert failed > count / 1000
    gc.collect()  # closes the files of truncated uploads, which Starlette leaves open


HAND_WRITTEN = [
    b'{"item_id": "bib", "k": NaN}',
    b'{"item_id": "bib", "k": Infinity}',
    b'{"item_id": "bib", "k": -Infinity}',
    b'{"item_id": "bib", "k": 1e400}',
    b'{"item_id": "bib", "diversity": -1e400}',
    b'{"item_id": "bib", "min_score": NaN}',
    b'{"text": "bib", "attributes": {"price": NaN}}',
    b'{"text": "bib", "attributes": {"price": 1e400}}',
    b'{"item_id": "bib", "filter": {"price": {"any_of": [NaN]}}}',
    b'{"item_id": "bib", "filter": {"price": {"min": Infinity}}}',
    b'{"item_id": "bib", "promoted": {"item_ids": ["cot"], "share": NaN}}',
    b'{"item_id": "bib", "relations": [{"relation": "gardeners", "weight": NaN}]}',
    b'{"item_id": "bib", "unknown": NaN}',
    b'{"item_id": "\\ud800", "unknown": 1}',
    b'{"item_id": "bib", "\\udc00": 1}',
    b'{"text": "\\ud800\\ud800"}',
    b'{"item_id": "bib", "relation": {"description": "\\ud800"}}',
    b'{"text": "bib", "attributes": {"": 1}}',
    b'{"text": "bib", "attributes": {"price": ' + b"9" * 400 + b"}}",
    b'{"item_id": "bib", "filter": {"sale": {"any_of": [' + b"9" * 400 + b"]}}}",
    b'{"item_id": "bib", "k": ' + b"9" * 5_000 + b"}",
    b'{"item_id": "bib", ' + b'"x' * 1_000 + b'": 1}',
    b'{"item_id": "bib", "k": "7"}',
    b'{"item_id": "bib", "k": true}',
    b'{"item_id": "bib", "item_id": 7}',
]


def test_rejects_bodies_that_make_plain_fastapi_fail(app: FastAPI) -> None:
    async def ask(app: FastAPI) -> list[Answer]:
        async with directly(app) as direct:
            return [await direct.ask("POST", "/retrieve", body) for body in HAND_WRITTEN]

    answers = asyncio.run(ask(app))
    for answer in answers:
        assert_sound(answer)
    assert {answer.status for answer in answers} == {400, 422}
    assert sum(answer.status == 500 for answer in asyncio.run(ask(plain(app)))) >= 8


@pytest.mark.parametrize(
    ("number", "told"), [("NaN", "NaN"), ("1e400", "Infinity"), ("true", "true"), ('"7"', '"7"')]
)
def test_validates_the_json_part_of_an_upload_strictly(app: FastAPI, number: str, told: str) -> None:
    async def ask() -> Answer:
        async with directly(app) as direct:
            body = upload(f'{{"min_score": {number}}}'.encode(), pictures()[0])
            return await direct.ask("POST", "/retrieve", body, "multipart/form-data; boundary=cut")

    answer = asyncio.run(ask())
    assert_sound(answer)
    [error] = json.loads(answer.body)["errors"]
    assert (error["pointer"], error["value"]) == ("#/min_score", told)


def request_models(kind: type[BaseModel] = Request) -> Iterator[type[BaseModel]]:
    """Yield all models of requests and their parts."""
    for model in kind.__subclasses__():
        yield model
        yield from request_models(model)


def fields() -> list[Any]:
    """Return the test parameters for every field of every request model."""
    return [
        pytest.param(model, name, field, id=f"{model.__name__}.{name}")
        for model in dict.fromkeys(request_models())
        for name, field in model.model_fields.items()
    ]


def types_of(field: FieldInfo) -> set[Any]:
    """Return the types that a field may have, except null."""
    union = get_origin(field.annotation) is not None and type(None) in get_args(field.annotation)
    return {
        kind
        for kind in (get_args(field.annotation) if union else (field.annotation,))
        if kind is not type(None)
    }


@pytest.mark.parametrize(("model", "name", "field"), fields())
def test_number_fields_reject_booleans_strings_nan_and_infinity(
    model: type[BaseModel], name: str, field: FieldInfo
) -> None:
    if not types_of(field) & {int, float}:
        return
    for value in ("true", '"7"', "NaN", "1e400"):
        with pytest.raises(RequestValidationError) as refused:
            read(model, f'{{"{name}": {value}}}'.encode())
        assert ("body", name) in {error["loc"][:2] for error in refused.value.errors()}


@pytest.mark.parametrize(("model", "name", "field"), fields())
def test_validation_of_large_collections_stops_at_the_first_invalid_entry(
    model: type[BaseModel], name: str, field: FieldInfo
) -> None:
    kinds = {get_origin(kind) for kind in types_of(field)}
    most = min((bound.max_length for bound in field.metadata if isinstance(bound, MaxLen)), default=10**9)
    if dict in kinds or (kinds & {list, tuple} and most > 100):
        assert any(isinstance(bound, FailFast) for bound in field.metadata)


def many(count: int, entry: bytes) -> bytes:
    return b",".join(entry.replace(b"#", b"%d" % number) for number in range(count))


HEAVY = {
    "wrong entries": b'{"item_id":"bib","exclude":[' + many(500_000, b"0") + b"]}",
    "wrong fields": b'{"item_id":"bib","fields":[' + many(500_000, b"0") + b"]}",
    "wrong attributes": b'{"text":"bib","attributes":{' + many(80_000, b'"#":[]') + b"}}",
    "many attributes": b'{"text":"bib","attributes":{' + many(80_000, b'"#":1') + b"}}",
    "wrong filters": b'{"item_id":"bib","filter":{' + many(40_000, b'"#":{"min":[]}') + b"}}",
    "wrong values": b'{"item_id":"bib","filter":{"price":{"any_of":[' + many(300_000, b"[]") + b"]}}}",
    "unknown keys": b'{"item_id":"bib",' + many(90_000, b'"#":0') + b"}",
    "one key many times": b'{"item_id":"bib",' + many(150_000, b'"a":0') + b"}",
    "deep lists": b"[" * MEGABYTE,
    "deep objects": b'{"a":' * 200_000,
    "a long number": b'{"item_id":"bib","k":' + b"9" * 1_000_000 + b"}",
    "a long fraction": b'{"item_id":"bib","diversity":0.' + b"9" * 1_000_000 + b"9}",
    "a long text": b'{"text":"' + b"x" * 1_000_000 + b'"}',
    "many escapes": b'{"text":"' + b"\\u0041" * 170_000 + b'"}',
    "a long key": b'{"' + b"x" * 1_000_000 + b'":1}',
    "much base64": b'{"picture":{"base64":"' + b"A" * 1_000_000 + b'"}}',
    "invalid base64": b'{"picture":{"base64":"' + b"A" * 1_000_000 + b'!"}}',
}


@pytest.mark.parametrize("body", HEAVY.values(), ids=HEAVY)
def test_rejects_a_megabyte_of_errors_quickly(app: FastAPI, body: bytes) -> None:
    assert len(body) <= MEGABYTE
    with asyncio.Runner() as runner:
        asked = directly(app)
        direct = runner.run(asked.__aenter__())
        runner.run(direct.ask("POST", "/retrieve", b'{"k":"7"}'))
        answers: list[Answer] = []
        spent = yards(lambda: answers.append(runner.run(direct.ask("POST", "/retrieve", body))))
        runner.run(asked.__aexit__(None, None, None))
    for answer in answers:
        assert_sound(answer)
        assert answer.status in (400, 422)
    assert spent < 16


async def show(direct: Direct, number: int, picture: bytes) -> tuple[Answer, float]:
    """Send a picture in base64 or as an upload, and return the response and its time in seconds."""
    begun = time.perf_counter()
    if number % 2:
        answer = await direct.ask(
            "POST", "/retrieve", upload(b'{"k": 1}', picture), "multipart/form-data; boundary=cut"
        )
    else:
        body = json.dumps({"picture": {"base64": b64encode(picture).decode()}, "k": 1}).encode()
        answer = await direct.ask("POST", "/retrieve", body)
    return answer, time.perf_counter() - begun


@pytest.mark.parametrize(
    ("count", "limit"),
    [(300, None), pytest.param(20_000, 0.25, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])],
)
def test_mutated_pictures_are_accepted_or_rejected(app: FastAPI, count: int, limit: float | None) -> None:
    async def gallery() -> Counter[int]:
        seen: Counter[int] = Counter()
        chance, made = random.Random(3), pictures()
        async with directly(app) as direct:
            for number in range(count):
                picture = picture_mutant(made[number % len(made)], made, chance)
                answer, took = await show(direct, number, picture)
                assert_sound(answer)
                assert answer.status == (200 if decodable(picture) else 422), answer
                if limit is not None and took > limit:  # retry, in case something else kept the machine busy
                    assert min([(await show(direct, number, picture))[1] for _ in range(3)]) <= limit
                seen[int(answer.status)] += 1
        return seen

    seen = asyncio.run(gallery())
    assert seen[200] > count / 10
    assert seen[422] > count / 3


def decodable(picture: bytes) -> bool:
    try:
        decode_picture(picture)
    except PictureError:
        return False
    return True


KEYS = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items()).encode()
QUESTION = b'{"item_id": "bib", "relation": "gardeners", "k": 2}'
HONEST = (
    b"POST /retrieve HTTP/1.1\r\nHost: localhost\r\n" + KEYS + b"Content-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(QUESTION), QUESTION)
)
CHUNKED = HONEST.replace(b"Content-Length: %d" % len(QUESTION), b"Transfer-Encoding: chunked").replace(
    QUESTION, b"%x\r\n%b\r\n0\r\n\r\n" % (len(QUESTION), QUESTION)
)
FRAMED = [
    HONEST,
    CHUNKED,
    HONEST + CHUNKED,
    HONEST.replace(b"\r\nHost", b"\r\nExpect: 100-continue\r\nHost"),
    b"GET /items/bib HTTP/1.1\r\nHost: localhost\r\n" + KEYS + b"\r\n",
    b"GET /items?limit=2&cursor=1 HTTP/1.1\r\nHost: localhost\r\n" + KEYS + b"Accept: */*\r\n\r\n",
    b"GET /items/bib/image HTTP/1.1\r\nHost: localhost\r\n" + KEYS + b"Range: bytes=0-9\r\n\r\n",
    b"GET /static/swagger-ui/swagger-ui.css HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-9,3-4\r\n\r\n",
]


def wait_until_ready(running: Running) -> None:
    ready = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    while statuses(asyncio.run(talk(running.port, ready))) != [200]:
        time.sleep(0.01)


@pytest.fixture
def served(app: FastAPI) -> Iterator[Running]:
    """Run a server with default limits, except for the deadlines of clients and a body limit of one megabyte."""
    patient = replace(Deadlines(), head=600, window=600, linger=600)
    with running(Server(app, Limits(BodyLimits(MEGABYTE)), patient, "critical")) as server:
        wait_until_ready(server)
        yield server


def test_rejects_two_hundred_megabytes_before_they_are_sent(served: Running) -> None:
    declared = HONEST.replace(b"Length: %d" % len(QUESTION), b"Length: 200000000").removesuffix(QUESTION)
    heard = asyncio.run(talk(served.port, declared))
    assert (statuses(heard), problem(heard)["status"]) == ([413], 413)
    endless = CHUNKED.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    heard = asyncio.run(talk(served.port, endless, *[b"10000\r\n" + b" " * 65_536 + b"\r\n"] * 3_000))
    assert (statuses(heard), problem(heard)["status"]) == ([413], 413)


def test_rejects_a_megabyte_of_header_fields(served: Running) -> None:
    for field in (b"X: " + b"x" * MEGABYTE, b"X: x\r\n" * 200_000, b"Cookie: " + b"a=b; " * 200_000):
        heard = asyncio.run(talk(served.port, HONEST.replace(b"Host", field + b"\r\nHost")))
        assert problem(heard)["status"] == 431


def test_a_wrong_content_length_affects_only_its_own_connection(served: Running) -> None:
    short = HONEST.replace(b"Length: %d" % len(QUESTION), b"Length: %d" % (len(QUESTION) - 1))
    # The first body ends before the last brace, which is then read as the start of a second request.
    assert statuses(asyncio.run(talk(served.port, short))) == [400, 400]
    long = HONEST.replace(b"Length: %d" % len(QUESTION), b"Length: %d" % (len(QUESTION) + 4))
    # The first body ends with the `POST` of the second request.
    assert statuses(asyncio.run(talk(served.port, long + HONEST))) == [400, 400]
    closing = HONEST.replace(b"\r\nHost", b"\r\nConnection: close\r\nHost")
    assert statuses(asyncio.run(talk(served.port, closing))) == [200]


@pytest.mark.parametrize(
    "count", [300, pytest.param(20_000, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])]
)
def test_mutated_framing_is_answered_or_rejected(app: FastAPI, count: int) -> None:
    at_once = replace(QUICK, head=0.3, idle=0.3, window=0.3)

    async def campaign(port: int) -> list[bytes]:
        chance = random.Random(7)
        mutants = iter([framing_mutant(chance, FRAMED) for _ in range(count)])
        heard: list[bytes] = []

        async def work() -> None:
            for one in mutants:
                heard.append(await talk(port, one, wait=PATIENCE))  # noqa: PERF401 (the workers share `mutants`)

        await asyncio.gather(*(work() for _ in range(50)))
        return heard

    with running(Server(app, replace(LIMITS, bodies=BodyLimits(MEGABYTE)), at_once, "critical")) as server:
        wait_until_ready(server)
        heard = asyncio.run(campaign(server.port))
        seen = Counter(status for one in heard for status in statuses(one))
        assert statuses(asyncio.run(talk(server.port, HONEST))) == [200]
    assert len(heard) == count
    assert max(seen) < 500
    assert {200, 400, 401, 404, 422} <= set(seen)
    assert not any(secret in one for one in heard for secret in (b"Traceback", b".py", b"site-packages"))
