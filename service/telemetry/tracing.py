"""Export of OpenTelemetry spans of requests and stages, if OpenTelemetry is installed and `--trace` is set.

FastAPI creates the request spans, with the span in the W3C `traceparent` header as their parent. `prometheus.py`
creates the stage spans. This module only configures the export. The SDK's environment variables, mainly
OTEL_EXPORTER_OTLP_ENDPOINT, set the destination.
"""

from typing import TYPE_CHECKING

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace

from model import __version__
from model.errors import InputError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

UNTRACED = frozenset({"/livez", "/readyz", "/metrics"})
"""Paths that are not traced, because monitoring systems poll them every few seconds."""


def open_tracer_provider() -> "TracerProvider":
    """Open a provider that sends spans to the collector set in the environment. The caller must shut it down.

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
    """Return the FastAPI telemetry settings: requests are traced if `provider` is given; metrics and logs are off."""
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
    """Return the ID of the current trace in hexadecimal, or None if there is no trace."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None
