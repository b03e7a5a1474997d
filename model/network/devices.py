"""Choice of the device that the network runs on, and the name of the machine."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from numpy import ndarray

from model.config import Device
from model.console import say
from model.errors import InputError


def choose_device(device: Device) -> torch.device:
    """Return the torch device for the `--device` option; `auto` is CUDA if it is available.

    Raises:
        InputError: CUDA is requested but not available.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda was given, but this machine has no CUDA device. Use --device auto.")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


@contextmanager
def pinned(memory: ndarray, device: torch.device) -> Iterator[None]:
    """Pin `memory` while the context is open if `device` is a CUDA device, so that copies to it do not block.

    If CUDA refuses, one line says so, and copies are slower.
    """
    cuda: Any = torch.cuda.cudart() if device.type == "cuda" else None
    refused = 0 if cuda is None else int(cuda.cudaHostRegister(memory.ctypes.data, memory.nbytes, 1))
    if refused:
        with suppress(RuntimeError):  # CUDA would report the refusal once more, with the next kernel
            torch.zeros(1, device=device)
        say(
            f"{memory.nbytes / 1e6:.0f} MB could not be pinned (CUDA error {refused}): copies to the GPU are slower."
        )
    try:
        yield
    finally:
        if cuda is not None and not refused:
            cuda.cudaHostUnregister(memory.ctypes.data)


def machine_name(device: Device) -> str:
    """Return the models of the GPU, if `device` selects one, and of the CPU, and the number of threads of torch."""
    threads = torch.get_num_threads()
    cpu = f"{_cpu_model()}, {threads} thread{'' if threads == 1 else 's'}"
    chosen = choose_device(device)
    return f"{torch.cuda.get_device_name(chosen)}; {cpu}" if chosen.type == "cuda" else cpu


def _cpu_model() -> str:
    """Return the model of the CPU; on systems without /proc/cpuinfo, what Python knows of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
