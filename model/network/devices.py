"""The device that the network computes on."""

import torch

from model.config import Device
from model.errors import InputError


def choose_device(device: Device) -> torch.device:
    """Choose the device that an option means.

    Raises:
        InputError: CUDA is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "--device cuda was asked for, and this machine has no CUDA device; use --device auto."
        )
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)
