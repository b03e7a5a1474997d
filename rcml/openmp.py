"""How the threads of OpenMP wait for each other."""

import os

WAIT_POLICY = "OMP_WAIT_POLICY"

BUSY_LOAD = 0.5
"""Number of running processes, on average over the last minute, from which the machine is taken to be busy."""


def wait_passively_if_busy() -> None:
    """Let the threads of torch and FAISS sleep while they wait for each other, if the machine is busy.

    By default they wait actively. A thread that has lost its core to another process is then waited for by threads that
    keep the other cores, so training beside other work took 3 to 12 times as long as with sleeping threads. On a quiet
    machine, layers of the size of CLIP's take the same time; the demo, whose network is small, took 192 s instead of
    174 s. A wait policy that the user has set is kept.

    This has an effect only before torch or FAISS is imported, because the OpenMP library (GNU, LLVM) reads the
    environment when it is loaded. Processes that are started later inherit the setting.
    """
    if os.getloadavg()[0] >= BUSY_LOAD:
        os.environ.setdefault(WAIT_POLICY, "PASSIVE")
