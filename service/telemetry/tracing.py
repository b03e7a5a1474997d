"""Spans of requests and stages for OpenTelemetry, where it is installed and `--trace` asks for them.

FastAPI makes the spans of requests itself, with W3C `traceparent` as their parents; `prometheus.py` makes
those of stages. Here is only where they go: to what the SDK's own variables name, OTEL_EXPORTER_OTLP_ENDPOINT
above all.
"""

from typing import TYPE_CHECKING

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace

from model import __version__
from model.errors import InputError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

UNTRACED = frozenset({"/livez", "/readyz", "/metrics"})
"""Paths that machines ask for every few seconds."""


def open_tracer_provider() -> "TracerProvider":
    """Open a provider that sends spans to the collector that the environment names; to be shut down at the end.

    Raises:
        InputError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise InputError(
            "--trace needs OpenTelemetry, which is not installed. Run: pip install 'rcml[otel]'"
        ) from None
    ours = Resource.create({"service.name": "rcml", "service.version": __version__})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def telemetry(provider: "trace.TracerProvider | None") -> TelemetryConfig:
    """Configure FastAPI to trace requests through `provider`, or not at all; it counts and logs nothing."""
    return {
        "tracer_provider": provider,
        "tracing": provider is not None,
        "operation_spans": False,
        "metrics": False,
        "logs": False,
        "auto_configure": False,
        "exclude": lambda scope: scope["path"] in UNTRACED,
    }


def trace_id() -> str | None:
    """Return the hexadecimal id of the trace that the caller runs in, if it is in one."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None
