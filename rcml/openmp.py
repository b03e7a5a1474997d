"""How the threads of OpenMP wait for each other."""

import os

WAIT_POLICY = "OMP_WAIT_POLICY"


def wait_passively() -> None:
    """Let the threads of torch and FAISS sleep while they wait for each other, unless the user has set a wait policy.

    By default they wait actively. A thread that has lost its core to another process is then waited for by threads that
    keep the other cores, so training beside other work took 3 to 12 times as long as with sleeping threads. On a quiet
    machine, layers of the size of CLIP's take the same time; those of the network of the sample shop take up to 1.5
    times as long.

    This has an effect only before torch or FAISS is imported, because the OpenMP library (GNU, LLVM) reads the
    environment when it is loaded. Processes that are started later inherit the setting.
    """
    os.environ.setdefault(WAIT_POLICY, "PASSIVE")
