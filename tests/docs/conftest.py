"""Fixtures that provide what a reader of the documentation has: the folder `var`, a picture, and a running demo."""

import time
from collections.abc import Iterator
from pathlib import Path
from shutil import copy, copytree

import httpx
import pytest

from service.app import create_app
from service.http.server import Server
from service.settings import ServeConfig
from tests.conftest import Road
from tests.service.http.test_connection import running

from .commands import Shell


@pytest.fixture(scope="session")
def folder(road: Road, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the artifacts into a new folder, because the examples change the served index."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("rcml", "index", "report"):
        copytree(road.folder / name, folder / "var" / name)
    copy(road.folder / "shop" / "images" / "i0007.png", folder / "helmet.png")
    return folder


@pytest.fixture(scope="session")
def shell(folder: Path) -> Iterator[Shell]:
    config = ServeConfig(index=folder / "var" / "index")
    with (
        running(Server(create_app(config), log_level="critical")) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=600) as service,
    ):
        while service.get("/readyz").status_code != 200:
            time.sleep(0.05)
        yield Shell(folder, service, {})
