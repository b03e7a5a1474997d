"""Prometheus metrics endpoint, `GET /metrics`."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.telemetry.prometheus import Metrics

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={
        200: {
            "description": "Metrics in Prometheus text format, or in OpenMetrics format if `Accept` requests it.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
def metrics(request: Request) -> Response:
    """Return all counters, gauges and histograms for Prometheus."""
    counted: Metrics = request.state.metrics
    content, media_type = counted.exposition(request.headers.get("accept", ""))
    return Response(content, headers={"Content-Type": media_type})
