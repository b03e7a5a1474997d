"""Choice of the device that the network runs on."""

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
