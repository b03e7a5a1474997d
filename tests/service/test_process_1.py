"""Tests of `rcml` as process 1 of a container, where the kernel ignores every signal that has no handler."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.indexes.fakes import FakeShop

from .test_serve import PROGRAM

CONTAINER = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
"""Command that runs another as process 1."""

pytestmark = pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*CONTAINER, "true"], capture_output=True).returncode != 0,
    reason="this machine allows no process namespaces (unshare --user --pid)",
)


def code_after_sigterm(command: Sequence[str], pattern: str) -> int:
    """Run a command as process 1 until it has written a line with the pattern, and return its code after SIGTERM."""
    with subprocess.Popen(
        [*CONTAINER, sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as outer:
        assert outer.stdout is not None
        shown = []
        for line in outer.stdout:
            shown.append(line)
            if re.search(pattern, line):
                break
        else:
            pytest.fail(f"it ended before {pattern!r}: {shown}")
        [child] = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        outer.stdout.read()
        return outer.wait(600)


def test_server_ends_with_code_0(shop: FakeShop) -> None:
    assert code_after_sigterm(["-c", PROGRAM, str(shop.index)], "greetings from") == 0


def test_server_with_workers_ends_with_code_0(shop: FakeShop) -> None:
    command = ["-m", "tests.service.workers.worker_server", str(shop.index), "workers=2"]
    assert code_after_sigterm(command, "Open http") == 0


def test_server_that_is_still_opening_ends_with_code_0(shop: FakeShop) -> None:
    assert code_after_sigterm(["-c", PROGRAM, str(shop.index)], "and opening") == 0


def test_stage_before_the_server_ends_with_code_143(tmp_path: Path) -> None:
    command = ["-m", "rcml", "demo", "--out", str(tmp_path / "demo"), "--items", "300", "--shoppers", "400"]
    assert code_after_sigterm([*command, "--steps", "1000000"], "prepared") == 128 + signal.SIGTERM
