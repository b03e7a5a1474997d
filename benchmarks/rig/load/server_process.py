"""Server in a process of its own, as `rcml serve` starts it, with the network of its index or with a stand-in."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import httpx

from model.checkpoint.checkpoint import Checkpoint
from model.embeddings.encoder_protocol import ItemEncoder

from ..shop import FixedEncoder

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_NETWORK = "BENCHMARK_NETWORK"
"""Environment variable with the fields of `Network` as JSON, which every process of the server reads."""


@dataclass(frozen=True)
class Network:
    """Stand-in for a network, which each worker has for itself. It sleeps, so it takes no processor time."""

    dim: int
    batch_s: float = 0.0
    """Seconds per batch."""
    item_s: float = 0.0
    """Seconds per item of a batch, in addition."""


def open_fixed(checkpoint: Path, *how: object) -> ItemEncoder:
    """Open the stand-in."""
    network = Network(**json.loads(os.environ[_NETWORK]))
    relations = len(Checkpoint.open(checkpoint).relations)
    return cast(ItemEncoder, FixedEncoder(relations, network.dim, network.batch_s, network.item_s))


@contextmanager
def served(index: Path, workers: int, network: Network | None) -> Iterator[tuple[int, int]]:
    """Serve an index with a number of workers; yield the port and the process. Without `network`, its own is used."""
    command = [sys.executable, "-m", "benchmarks.rig.load.server_process", str(index), str(workers)]
    environment = dict(os.environ)
    if network is not None:
        environment[_NETWORK] = json.dumps(asdict(network))
    with (
        tempfile.NamedTemporaryFile("r") as log,
        Path(log.name).open("w") as written,
        subprocess.Popen(command, stderr=written, env=environment) as process,
    ):
        while (listening := re.search(r"http://127\.0\.0\.1:(\d+)", Path(log.name).read_text())) is None:
            assert process.poll() is None, Path(log.name).read_text()
            time.sleep(0.1)
        try:
            while httpx.get(f"{listening[0]}/readyz", timeout=600).status_code != 200:
                time.sleep(0.2)
            yield int(listening[1]), process.pid
        finally:
            process.terminate()


def processor_seconds(parent: int) -> float:
    """Return the processor time of a process and its children."""
    return sum(int(fields[11]) + int(fields[12]) for fields in _statistics(parent)) / _TICKS_PER_S


def resident_mib(parent: int) -> float:
    """Return the resident memory of a process and its children in MiB."""
    return sum(int(fields[21]) for fields in _statistics(parent)) * _PAGE_BYTES / 2**20


def _statistics(parent: int) -> Iterator[list[str]]:
    """Yield the fields of /proc/PID/stat that follow the name, for a process and its children (proc(5))."""
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(folder.name) == parent or int(fields[1]) == parent:
                yield fields


def main() -> None:
    """Serve the index and the number of workers in the arguments."""
    from service.serve import serve
    from service.settings import ServeConfig

    config = ServeConfig(index=Path(sys.argv[1]), port=0, log_level="warning", workers=int(sys.argv[2]))
    serve(config, open_encoder=open_fixed if _NETWORK in os.environ else None)


if __name__ == "__main__":
    main()
