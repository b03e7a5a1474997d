"""Jobs that were in progress when the network process ended, so that one of them cannot end it again and again."""

from collections.abc import Iterable
from hashlib import sha256
from time import monotonic

from numpy import ndarray

from service.engine.model_jobs import Job

from .frames import Frame, encode
from .messages import pack

MAX_DEATHS = 3
"""Number of times that the network process may end during a job before the job is refused."""

REFUSED_S = 600.0
"""Seconds for which such a job is refused, or suspected otherwise."""

MAX_SUSPECTS = 1_000


class Suspects:
    """Jobs that may have ended the network process. A job that succeeds is no longer suspected."""

    def __init__(self) -> None:
        self._deaths: dict[bytes, tuple[int, float]] = {}

    def add(self, jobs: Iterable[Job]) -> None:
        """Suspect the jobs that were lost with a network process."""
        now = monotonic()
        self._deaths = {key: one for key, one in self._deaths.items() if now - one[1] < REFUSED_S}
        for key in dict.fromkeys(map(_key, jobs)):  # equal jobs of several callers count once
            self._deaths[key] = (self._deaths.pop(key, (0, now))[0] + 1, now)
        for key in [*self._deaths][:-MAX_SUSPECTS]:
            del self._deaths[key]

    def clear(self, job: Job) -> None:
        """Stop suspecting a job, because it has succeeded."""
        if self._deaths:  # normally, no job is suspected, and this takes no time
            self._deaths.pop(_key(job), None)

    def check(self, job: Job) -> None:
        """Refuse a job that has always ended the network process.

        Raises:
            RuntimeError: The network process ended `MAX_DEATHS` times during this job.
        """
        if not self._deaths:
            return
        deaths, last = self._deaths.get(_key(job), (0, 0.0))
        if deaths >= MAX_DEATHS and monotonic() - last < REFUSED_S:
            raise RuntimeError(
                f"The network process ended {deaths} times during this {type(job).__name__}, so it is refused for "
                f"{REFUSED_S:g} s."
            )


def _key(job: Job) -> bytes:
    """Return a digest of the content of a job."""
    arrays: list[ndarray] = []
    digest = sha256()
    for part in encode(Frame("job", 0, pack(job, arrays), arrays)):
        digest.update(part)
    return digest.digest()
