"""On a busy machine, the command lets the threads of torch and FAISS sleep while they wait for each other."""

import os
import re
import subprocess
import sys

import pytest

from rcml.openmp import WAIT_POLICY

SHOW = """
import os, sys
from contextlib import suppress
from rcml.__main__ import main
sys.argv = ["rcml", "--help"]
os.getloadavg = lambda: ({load}, 0.0, 0.0)
with suppress(SystemExit):
    main()
import {library}
"""


def spins(library: str, load: float, **environment: str) -> set[int]:
    """Return how often a waiting thread looks before it sleeps, as told by the OpenMP library of `library`.

    `load` is what the operating system says is the load.
    """
    inherited = {name: value for name, value in os.environ.items() if name != WAIT_POLICY}
    done = subprocess.run(
        [sys.executable, "-c", SHOW.format(library=library, load=load)],
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
    assert spins(library, load=0.5) == {0}


def test_threads_wait_actively_on_a_quiet_machine() -> None:
    assert min(spins("torch", load=0.4)) > 1_000


def test_wait_policy_of_the_user_is_kept() -> None:
    assert min(spins("torch", load=9, OMP_WAIT_POLICY="active")) > 1_000_000
