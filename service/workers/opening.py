"""Opening of a version by all workers, before it is decided whether they serve it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from service.shared.channel import Frame


def _nobody(**content: Any) -> None:
    """Drop the outcome of the opening at startup, for which no request waits."""


@dataclass(frozen=True)
class Opening:
    """A version that the workers are opening."""

    epoch: int
    """Number of the version."""
    artifacts: Frame | None
    """Artifacts of the version (`service.lifecycle.engine_swap.ArtifactPaths`); None: those of the server's options."""
    answer: Callable[..., None] = _nobody
    """Function that sends the outcome to the worker that asked: nothing, or an error as JSON."""
