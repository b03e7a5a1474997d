"""The families of systems, and the function that opens one by name."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from model.config import Device
from model.errors import InputError

from .declip import open_declip
from .imagebind import open_imagebind
from .openclip import open_openclip
from .pretrained_towers import open_pretrained
from .qwen_embedding import open_qwen_embedding
from .sentence import open_sentence
from .system import System
from .unicl import open_unicl

BY_NAME: dict[str, Callable[[str, Device], System]] = {
    "clip": partial(open_pretrained, "clip"),
    "siglip": partial(open_pretrained, "siglip"),
    "siglip2": partial(open_pretrained, "siglip2"),
    "open_clip": open_openclip,
}
"""Families that are opened by a folder or a name."""

BY_FOLDER: dict[str, Callable[[Path, Device], System]] = {
    "imagebind": open_imagebind,
    "unicl": open_unicl,
    "declip": open_declip,
    "sentence": open_sentence,
    "qwen-vl-embedding": open_qwen_embedding,
}
"""Families that are opened by a local folder."""


def open_system(spec: str, device: Device = "auto") -> System:
    """Open a system by its family and its folder or name: `clip:openai/clip-vit-base-patch32`, `imagebind:folder`.

    Raises:
        InputError: the family is unknown, the folder does not exist, or the system cannot be opened from it.
    """
    family, separator, source = spec.partition(":")
    if not (separator and source) or family not in {*BY_NAME, *BY_FOLDER}:
        raise InputError(
            f"{spec!r} names no system. Write family:folder with one of these families: "
            f"{', '.join([*BY_NAME, *BY_FOLDER])}."
        )
    if family in BY_NAME:
        return BY_NAME[family](source, device)
    folder = Path(source)
    if not folder.is_dir():
        raise InputError(
            f"{source} is not a folder, so {spec!r} cannot be opened. Give the folder of the model."
        )
    return BY_FOLDER[family](folder, device)
