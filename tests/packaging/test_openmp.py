"""On a busy machine, the command lets the threads of torch and FAISS sleep while they wait for each other."""

import os
import re
import subprocess
import sys

import pytest

from rcml.openmp import WAIT_POLICY, other_running_threads

SHOW = """
import sys
from contextlib import suppress
import rcml.openmp
from rcml.__main__ import main
rcml.openmp.other_running_threads = lambda: {running}
sys.argv = ["rcml", "--help"]
with suppress(SystemExit):
    main()
import {library}
"""


def spins(library: str, running: int, **environment: str) -> set[int]:
    """Return how often a waiting thread looks before it sleeps, as told by the OpenMP library of `library`.

    `running` is what the operating system says of other processes.
    """
    inherited = {name: value for name, value in os.environ.items() if name != WAIT_POLICY}
    done = subprocess.run(
        [sys.executable, "-c", SHOW.format(library=library, running=running)],
        env={**inherited, "OMP_DISPLAY_ENV": "verbose", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
    if not found:
        pytest.skip("this OpenMP library is not GNU's")
    return {int(one) for one in found}


@pytest.mark.parametrize("library", ["torch", "faiss"])
def test_threads_sleep_while_they_wait_on_a_busy_machine(library: str) -> None:
    assert spins(library, running=1) == {0}


def test_threads_wait_actively_on_a_quiet_machine() -> None:
    assert min(spins("torch", running=0)) > 1_000


def test_wait_policy_of_the_user_is_kept() -> None:
    assert min(spins("torch", running=9, OMP_WAIT_POLICY="active")) > 1_000_000


def test_a_busy_process_is_seen() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            seen = max(other_running_threads() for _ in range(1_000))
        finally:
            busy.kill()
    assert seen >= 1
