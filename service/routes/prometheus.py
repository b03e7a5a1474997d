"""`GET /metrics`, for Prometheus."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.telemetry.prometheus import Metrics

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    summary="What is counted?",
    response_class=Response,
    responses={
        200: {
            "description": "Prometheus text format, or OpenMetrics where `Accept` asks for it.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
def metrics(request: Request) -> Response:
    """Give all counters, gauges and histograms, for Prometheus to read every few seconds."""
    counted: Metrics = request.state.metrics
    content, media_type = counted.exposition(request.headers.get("accept", ""))
    return Response(content, headers={"Content-Type": media_type})
