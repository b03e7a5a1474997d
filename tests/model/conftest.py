"""Fixtures of the model tests: a prepared catalogue, and a network trained on it with each of the three objectives.

The fixtures are created once, and the tests only read them.
"""

from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_limits

from model.config import Objective
from model.network.processor import Preprocessor
from model.training.train import train

from .planted import COLOURS, SHAPES, TINY, prepare_catalogue, tiny_training


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Use one thread: threads that share a busy core wait for each other, and a second of work can take minutes."""
    torch.set_num_threads(1)
    threadpool_limits(1)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_catalogue(tmp_path_factory.mktemp("catalogue"))


@pytest.fixture(scope="session")
def checkpoints(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Objective, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    objectives: tuple[Objective, ...] = ("rcml", "clip", "blind")
    for objective in objectives:
        train(tiny_training(prepared, folder / objective, objective=objective))
    return {objective: folder / objective for objective in objectives}


@pytest.fixture(scope="session")
def preprocessor() -> Preprocessor:
    return Preprocessor.train([f"{colour} {shape}" for colour in COLOURS for shape in SHAPES], TINY)
