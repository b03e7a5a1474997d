"""Worker: one of several processes of a server, and what it shares with the others.

`service/workers/supervisor.py` starts the workers. `service/serve.py` runs the application in each of them.
"""

from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path

from .bucket_table import BucketTable
from .channel import Channel
from .counters import SharedCounters

COUNTERS_FILE, BUCKETS_FILE = "counters", "buckets"
"""Files in the folder of a server; the files of its metrics (`*.db`) lie beside them."""


@dataclass(frozen=True)
class WorkerPlace:
    """Place of a worker among the `count` workers of a server. The parent passes it to a new process."""

    number: int
    count: int
    folder: Path
    """Private folder of the server, in memory if the system has a file system in memory."""
    connection: "Connection[bytes, bytes]"
    started: datetime
    """Time at which the server started."""


class Worker:
    """Worker, as it sees itself and the others."""

    def __init__(self, place: WorkerPlace) -> None:
        """Open what the parent has created; see `create_shared`."""
        self.number = place.number
        self.folder = place.folder
        self.started = place.started
        self.channel = Channel(place.connection)
        self.counters = SharedCounters.open(place.folder / COUNTERS_FILE, place.number, place.count)
        self.buckets = BucketTable(place.folder / BUCKETS_FILE)


def create_shared(folder: Path, count: int) -> None:
    """Create what `count` workers share in `folder`."""
    BucketTable.create(folder / BUCKETS_FILE)
    SharedCounters.create(folder / COUNTERS_FILE, count)
