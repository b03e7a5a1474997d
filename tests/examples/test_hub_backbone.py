"""Tests of the script for a backbone of the Hub, with a tiny random CLIP in its place.

`make test` runs the verbs of the script in this process, and `make soak` runs the script itself.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from rcml import Client
from service.app import create_app
from service.cli import main
from service.settings import ServeConfig
from tests.docs.commands import config_of
from tests.docs.documents import ROOT
from tests.model.network.families import write_clip
from tests.model.planted import prepare_catalogue
from tests.service.conftest import wait_until_ready

SCRIPT = ROOT / "examples" / "hub_backbone.sh"
QUESTION = {"item_id": "red-mug-0", "relation": "colour", "k": 3}


def script(folder: Path, rcml: str, *options: str) -> subprocess.Popen[str]:
    """Start the script with a tiny backbone and the shell command `rcml` as the program of this name."""
    prepared = prepare_catalogue(folder)
    write_clip(folder / "clip")
    program = folder / "bin" / "rcml"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{rcml}\n")
    program.chmod(0o755)
    environment = os.environ | {
        "BACKBONE": str(folder / "clip"),
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PORT": "0",
        "PYTHONPATH": str(ROOT),
    }
    command = [str(SCRIPT), str(prepared), str(folder / "hub"), *options]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_verbs_of_script_train_index_and_serve(tmp_path: Path) -> None:
    with script(tmp_path, 'printf "%s\\t" "$@"; echo', "--steps", "2") as started:
        verbs = [line.rstrip("\t").split("\t") for line in started.communicate()[0].splitlines()]
    assert started.returncode == 0
    *before, serve = verbs
    assert [main(verb) for verb in before] == [0, 0]
    config = config_of(serve)
    assert isinstance(config, ServeConfig)
    with TestClient(create_app(config)) as client:
        wait_until_ready(client)
        assert len(client.post("/retrieve", json=QUESTION).json()["results"]) == 3


@pytest.mark.soak
def test_script_trains_indexes_and_serves(tmp_path: Path) -> None:
    with script(tmp_path, f'exec "{sys.executable}" -m rcml "$@"', "--steps", "2") as started:
        try:
            assert started.stderr is not None
            lines = [started.stderr.readline()]
            while not (found := re.search(r"http://127\.0\.0\.1:\d+", lines[-1])):
                lines.append(started.stderr.readline())
                assert lines[-1], "".join(lines)
            while httpx.get(f"{found[0]}/readyz", timeout=600).status_code != 200:
                time.sleep(0.05)
            with Client(found[0]) as client:
                assert client.ready().items == 108
                assert len(client.retrieve(item_id="red-mug-0", relation="colour", k=3).results) == 3
                assert len(client.retrieve(text="red mug", relation="colour", k=3).results) == 3
        finally:
            started.send_signal(signal.SIGTERM)
            started.communicate()
    assert started.returncode == -signal.SIGTERM


def test_script_names_missing_arguments(tmp_path: Path) -> None:
    shown = subprocess.run([str(SCRIPT)], capture_output=True, text=True, cwd=tmp_path)
    assert shown.returncode == 1
    assert "Give the folder that rcml prepare wrote." in shown.stderr
