"""Test that runs the script with a tiny random CLIP in place of a backbone of the Hub."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from rcml import Client
from tests.conftest import Road
from tests.docs.documents import ROOT
from tests.model.network.families import write_clip

SCRIPT = ROOT / "examples" / "hub_backbone.sh"


def test_script_trains_indexes_and_serves(road: Road, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    rcml = tmp_path / "bin" / "rcml"
    rcml.parent.mkdir()
    rcml.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rcml "$@"\n')
    rcml.chmod(0o755)
    environment = {
        **os.environ,
        "BACKBONE": str(tmp_path / "clip"),
        "PATH": f"{rcml.parent}:{os.environ['PATH']}",
        "PORT": "0",
        "PYTHONPATH": str(ROOT),
        "RCML_LOG_FORMAT": "text",
    }
    command = [str(SCRIPT), str(road.folder / "prepared"), str(tmp_path / "hub"), "--steps", "2"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as script:
        try:
            assert script.stderr is not None
            lines: list[str] = []
            while not (found := re.search(r"http://127\.0\.0\.1:\d+", lines[-1] if lines else "")):
                lines.append(script.stderr.readline())
                assert lines[-1], "".join(lines)
            with Client(found[0], deadline=600) as client:
                relation = client.relations().relations[-1].relation_id
                assert len(client.retrieve(item_id="i0000", relation=relation, k=3).results) == 3
                assert len(client.retrieve(text="Navy helmet", relation=relation, k=3).results) == 3
        finally:
            script.send_signal(signal.SIGTERM)
            script.stderr.read()  # so that the server can write its last lines
    assert script.returncode == 0


def test_script_names_missing_arguments(tmp_path: Path) -> None:
    shown = subprocess.run([str(SCRIPT)], capture_output=True, text=True, cwd=tmp_path)
    assert shown.returncode == 1
    assert "Give the folder that rcml prepare wrote." in shown.stderr
