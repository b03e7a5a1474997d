"""Queue in front of a network: accepts the jobs of an engine and returns their results.

`LocalNetwork` runs in a thread of the same process, for tests and library users. `rcml serve` runs the network in a
process of its own (`network_process/`), because a thread would share the interpreter lock with the event loop.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial

from model.embeddings.encoder_protocol import ItemEncoder

from .batcher import Batcher
from .model_jobs import Job, Result, compute, weigh
from .queue_load import QueueLoad
from .watchdog import JOB_TIMEOUT_S, Heartbeat

CPU_BATCH_ITEMS, CUDA_BATCH_ITEMS = 16, 128
"""Maximum number of new items that the network encodes together. On a GPU, a hundred take hardly longer than one."""

_LIBRARIES = ("torch", "transformers")


class NetworkQueue(ABC):
    """Network of one checkpoint that runs jobs in batches.

    `device` is the name of its device, and `towers` the precision and library of its towers, in words. `versions` are
    those of the libraries that it runs with.
    """

    device: str
    towers: str
    versions: Mapping[str, str]
    batch_size: int
    heartbeat: Heartbeat

    @abstractmethod
    async def submit(self, job: Job) -> Result:
        """Run a job as part of a batch and return its result. A job whose caller is cancelled is skipped.

        Raises:
            OverloadedError: The job would have to wait too long.
            NotReadyError: The network process has ended.
            RcmlError: Any error that the network raises for the job.
        """

    @abstractmethod
    def expected_wait(self, more: int = 0) -> float:
        """Return the seconds that a job would wait behind the queued jobs and `more` others, if it would be rejected.

        Return 0 if the job would be accepted.
        """

    @property
    @abstractmethod
    def longest_s(self) -> float:
        """Longest time in seconds that a batch of any process has taken since the network was opened."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of jobs of this process that wait for the network."""

    @abstractmethod
    def close(self) -> None:
        """Finish the accepted jobs, then release the network. Must be called once, from any thread."""


class LocalNetwork(NetworkQueue):
    """Network that runs in a thread of this process."""

    def __init__(
        self, encoder: ItemEncoder, job_timeout_s: float = JOB_TIMEOUT_S, load: QueueLoad | None = None
    ) -> None:
        """Warm up the encoder and start the thread, which publishes the load of the queue in `load`, if it is given."""
        encoder.encode_texts(["warm"])  # the first call selects kernels and allocates memory
        self.device, self.towers = encoder.device, encoder.towers
        self.versions = {
            name: str(sys.modules[name].__version__) for name in _LIBRARIES if name in sys.modules
        }
        self._batcher: Batcher[Job, Result] = Batcher(
            partial(compute, encoder),
            "network",
            CUDA_BATCH_ITEMS if encoder.device.startswith("cuda") else CPU_BATCH_ITEMS,
            job_timeout_s=job_timeout_s,
            load=load,
            weigh=weigh,
        )
        self.batch_size = self._batcher.batch_size
        self.heartbeat = self._batcher.heartbeat

    async def submit(self, job: Job) -> Result:
        """Run a job in the thread; see `NetworkQueue.submit`."""
        return await self._batcher.submit(job)

    def expected_wait(self, more: int = 0) -> float:
        """Return the expected wait of a job that would be rejected; see `NetworkQueue.expected_wait`."""
        return self._batcher.expected_wait(more)

    @property
    def longest_s(self) -> float:
        """Longest time of a batch; see `NetworkQueue.longest_s`."""
        return self._batcher.longest_s

    def __len__(self) -> int:
        """Return the number of queued jobs."""
        return len(self._batcher)

    def close(self) -> None:
        """Finish the accepted jobs, then stop the thread."""
        self._batcher.close()
