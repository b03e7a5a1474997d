"""Number of threads of torch on a CPU for little work, such as one new item."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

MAX_SINGLE_THREAD_WORK = 20_000_000
"""Maximum number of parameters x items that one thread encodes alone: 16 items of the small network.

At the end of each layer, all threads wait for the slowest. If another thread of the service takes one of the cores,
they wait for milliseconds: on two busy cores, one new item took 2.5 ms with one thread and 4.9 ms with two (p90 3.0 and
9.1 ms).
"""


@contextmanager
def one_thread_if_small(parameters: int, items: int, device: torch.device) -> Iterator[None]:
    """Let torch use one thread on a CPU within the context if a network of `parameters` encodes only few `items`."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or parameters * items > MAX_SINGLE_THREAD_WORK:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
