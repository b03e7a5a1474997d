"""How the threads of OpenMP wait for each other."""

import os
from pathlib import Path

WAIT_POLICY = "OMP_WAIT_POLICY"


def other_running_threads() -> int:
    """Return how many other threads run or wait for a core now (proc(5), loadavg); 0 if the system does not tell."""
    try:
        running, _, _ = Path("/proc/loadavg").read_text().split()[3].partition("/")
    except (OSError, IndexError):
        return 0
    return int(running) - 1  # the thread that reads is one of them


def wait_passively_if_busy() -> None:
    """Let the threads of torch and FAISS sleep while they wait for each other, if other processes need a core.

    By default they wait actively. A thread that has lost its core to another process is then waited for by threads that
    keep the other cores, so training beside other work took 3 to 12 times as long as with sleeping threads. On a quiet
    machine, layers of the size of CLIP's take the same time; the demo, whose network is small, took 192 s instead of
    174 s. A wait policy that the user has set is kept.

    This has an effect only before torch or FAISS is imported, because the OpenMP library (GNU, LLVM) reads the
    environment when it is loaded. Processes that are started later inherit the setting.
    """
    if other_running_threads() > 0:
        os.environ.setdefault(WAIT_POLICY, "PASSIVE")
