"""Choice of the device that the network runs on, and the name of the machine."""

import platform
from pathlib import Path

import torch

from model.config import Device
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
