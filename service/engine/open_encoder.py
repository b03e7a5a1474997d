"""Loader of the encoder of a checkpoint; the only module of the service that imports torch."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from model.config import Device, TowerEngine, TowerPrecision
from model.embeddings.encoder_protocol import ItemEncoder

OpenLocalEncoder = Callable[[Path, Device, TowerPrecision, TowerEngine], ItemEncoder]
"""Function that loads the encoder of a checkpoint on a device, with a precision and a runtime for its towers."""


def open_encoder(
    checkpoint: Path, device: Device, precision: TowerPrecision, engine: TowerEngine
) -> ItemEncoder:
    """Load the encoder of a checkpoint into this process. No other function of the service imports torch."""
    from model.encoder.encoder import Encoder

    encoder = Encoder.from_pretrained(checkpoint, device, precision=precision, engine=engine)
    for tokens in (False, True) if encoder.device.startswith("cuda") else ():
        encoder.read_items(["warm"], [Image.new("RGB", (64, 64))], tokens)()  # records CUDA graphs
    return encoder
