"""Tests of the spans of requests and stages: the client's span is the parent, and tracing is off by default."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from anyio import to_thread
from fastapi import Request
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

from model.errors import InputError
from service.app import create_app
from service.settings import ServeConfig
from service.telemetry.logs import Json
from service.telemetry.prometheus import Metrics, Stage
from service.telemetry.tracing import open_tracer_provider, trace_id
from tests.indexes.fakes import FakeEncoder
from tests.service.conftest import served, wait_until_ready

from .test_logs import record

PARENT = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
TRACE = 0x0AF7651916CD43DD8448EB211C80319C


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def client(config: ServeConfig, exporter: InMemorySpanExporter) -> Iterator[TestClient]:
    """Return a client of a traced application with an extra route that searches in a thread."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = create_app(config, lambda *_: FakeEncoder(), tracer_provider=provider)

    @app.get("/staged/{name}")
    async def staged(name: str, request: Request) -> dict[str, Any]:
        metrics: Metrics = request.state.metrics

        def search() -> str:
            with metrics.stage(Stage.SEARCH):
                return Json().format(record("searching"))

        return {"line": await to_thread.run_sync(search)}

    with TestClient(app) as client:
        wait_until_ready(client)
        yield client
    provider.shutdown()


def spans(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_request_span_is_child_of_client_span(client: TestClient, exporter: InMemorySpanExporter) -> None:
    client.get("/items/red-mug", headers=PARENT)
    span = spans(exporter)["GET /items/{item_id}"]
    assert span.parent is not None
    assert span.context is not None
    assert (span.parent.span_id, span.context.trace_id) == (0xB7AD6B7169203331, TRACE)
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 200


def test_stage_span_is_child_of_request_span_in_another_thread(
    client: TestClient, exporter: InMemorySpanExporter
) -> None:
    line = client.get("/staged/x", headers=PARENT).json()["line"]
    request, stage = spans(exporter)["GET /staged/{name}"], spans(exporter)["search"]
    assert stage.parent is not None
    assert request.context is not None
    assert stage.parent.span_id == request.context.span_id
    assert f'"trace_id": "{TRACE:032x}"' in line


def test_probes_create_no_spans(client: TestClient, exporter: InMemorySpanExporter) -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        client.get(path)
    assert exporter.get_finished_spans() == ()


def test_creates_no_trace_without_provider(config: ServeConfig) -> None:
    with served(config) as client:
        assert client.get("/items/red-mug", headers=PARENT).status_code == 200
    assert trace_id() is None


def test_missing_package_error_names_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(InputError, match=r"pip install 'rcml\[otel\]'"):
        open_tracer_provider()
