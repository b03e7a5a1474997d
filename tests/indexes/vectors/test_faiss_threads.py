"""BLAS uses one thread after `use_one_blas_thread`; the threads of torch stay as they are."""

import subprocess
import sys

SCRIPT = """
import numpy, torch
from threadpoolctl import threadpool_info
from indexes.vectors.faiss_threads import use_one_blas_thread
torch.set_num_threads(3)
use_one_blas_thread()
print({one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}, torch.get_num_threads())
"""


def test_blas_gets_one_thread_and_torch_keeps_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={"OPENBLAS_NUM_THREADS": "2", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["{1}", "3"]
