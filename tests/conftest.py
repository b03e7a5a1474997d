"""A small demo, built once for all tests that need a real shop with a real network."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from model.artifact import Kind, open_artifact
from model.console import NOTES
from service.cli import main

# Threads that share a busy core wait for each other, and no test is large enough to need two. torch, faiss and numpy
# read these variables when they are loaded, in every process.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

# Even on a slow machine, no test server may exceed a deadline, report a stuck worker, or shut down before it has
# answered. Tests of these limits set the options themselves.
os.environ |= {"RCML_DEADLINE": "600", "RCML_WORKER_PATIENCE": "600", "RCML_SHUTDOWN_SECONDS": "600"}

# The time that an example takes depends on the machine, so it is not limited.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

GENERATION = "generation-000001"

ARTIFACTS: dict[str, Kind] = {
    "shop": "shop",
    "prepared": "prepared",
    "rcml": "checkpoint",
    "clip": "checkpoint",
    "blind": "checkpoint",
    "report": "report",
    f"index/{GENERATION}": "index",
}


@pytest.fixture(autouse=True)
def plain_notes() -> Iterator[None]:
    """Print notes as plain lines again after a test whose server logged them."""
    yield
    NOTES.handlers.clear()
    NOTES.propagate = True  # otherwise pytest gives this logger handlers of its own


@dataclass(frozen=True)
class Road:
    """Output of two runs of the demo: the folder, and after each run the messages and the digests."""

    folder: Path
    said: tuple[str, str]
    digests: tuple[dict[str, str], dict[str, str]]


@pytest.fixture(scope="session")
def road(tmp_path_factory: pytest.TempPathFactory) -> Road:
    import torch

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("road") / "demo"
    options = ["--out", str(folder), "--no-serve", "--items", "336", "--shoppers", "600", "--steps", "4"]
    said, found = [], []
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            lines: list[str] = []
            patch.setattr("service.demo.say", lines.append)
            assert main(["demo", *options]) == 0
        said.append("\n".join(lines))
        found.append({name: open_artifact(folder / name, kind).digest for name, kind in ARTIFACTS.items()})
    return Road(folder, (said[0], said[1]), (found[0], found[1]))
