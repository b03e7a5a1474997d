"""Models of OpenCLIP: MetaCLIP, DFN, EVA, MobileCLIP and others (the package `open_clip_torch`, an extra).

A model is a folder of the Hub (`open_clip_config.json` and weights), or the name of an architecture with a file of
weights. Only safetensors are read.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from model.config import Device
from model.data.pictures.images import load_picture
from model.errors import InputError
from model.network.backbone_config import shortened
from model.network.devices import choose_device

from .optional_package import import_optional
from .tower_system import TowerSystem

CONFIG_FILE = "open_clip_config.json"

PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
"""Values of OpenCLIP's table of released weights that belong to the pictures rather than to the architecture."""

FOLDER_REMEDY = "Download the whole model from the Hub into a folder, and write open_clip:folder."


class OpenClipTowers:
    """Both towers of an OpenCLIP model, with its tokenizer and its preparation of pictures."""

    def __init__(self, model: Any, tokenizer: Any, transform: Any, device: torch.device) -> None:
        self._model = model.eval().to(device)
        self._tokenizer = tokenizer
        self._transform = transform
        self._device = device
        self.dim = self.encode_texts(["a"]).shape[1]
        self.room = tokenizer.context_length - self._special_tokens()

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(weight.numel() for weight in self._model.parameters())

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, without special tokens."""
        if hasattr(self._tokenizer, "tokenizer"):  # a tokenizer of transformers
            encoded = self._tokenizer.tokenizer(list(texts), add_special_tokens=False)
            return [len(ids) for ids in encoded["input_ids"]]
        return [len(self._tokenizer.encode(text)) for text in texts]

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
        """Return the text features of the model."""
        features: Tensor = self._model.encode_text(self._tokenizer(list(texts)).to(self._device))
        return features

    def encode_pictures(self, paths: Sequence[Path]) -> Float[Tensor, "pictures dim"]:
        """Return the image features of the model."""
        pixels = torch.stack([self._transform(load_picture(path)) for path in paths])
        features: Tensor = self._model.encode_image(pixels.to(self._device))
        return features

    def _special_tokens(self) -> int:
        if hasattr(self._tokenizer, "tokenizer"):
            return len(self._tokenizer.tokenizer("")["input_ids"])
        return 2  # the start and the end of the text


def open_openclip(source: str, device: Device) -> TowerSystem:
    """Open a model of OpenCLIP: a folder, or `architecture:file`.

    Raises:
        InputError: OpenCLIP is not installed, the source has another form, or the weights do not fit.
    """
    package = import_optional("open_clip")
    architecture, separator, file = source.partition(":")
    if Path(source).is_dir():
        identifier, weights, options = f"local-dir:{source}", _weights_in(Path(source)), {}
    elif separator:
        identifier, weights, options = architecture, Path(file), _preprocessing(package, architecture)
    else:
        raise InputError(
            f"open_clip:{source} is neither a folder nor an architecture with a file of weights. Write "
            "open_clip:folder or, for example, open_clip:MobileCLIP-S1:weights.safetensors."
        )
    if weights.suffix != ".safetensors":
        raise InputError(
            f"{weights} is not a safetensors file. Other formats can run code when they are loaded. Download the "
            "weights as safetensors, or convert them in an isolated environment."
        )
    try:
        with warnings.catch_warnings(action="ignore"):
            model = package.create_model(
                identifier, load_weights=False, pretrained_text=False, force_preprocess_cfg=options
            )
            package.load_checkpoint(model, str(weights))
            tokenizer = package.get_tokenizer(identifier)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise InputError(
            f"OpenCLIP cannot load {source!r}: {shortened(error)} Use the weights of this architecture."
        ) from None
    settings = package.transform.PreprocessCfg(**model.visual.preprocess_cfg)
    towers = OpenClipTowers(
        model,
        tokenizer,
        package.transform.image_transform_v2(settings, is_train=False),
        choose_device(device),
    )
    return TowerSystem(f"open_clip:{source}", towers, towers, towers.parameters)


def _weights_in(folder: Path) -> Path:
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1 or not (folder / CONFIG_FILE).is_file():
        raise InputError(
            f"{folder} must contain {CONFIG_FILE} and one safetensors file, but it has {len(files)} of them. "
            "Download a model of OpenCLIP from the Hub into this folder."
        )
    return files[0]


def _preprocessing(package: Any, architecture: str) -> dict[str, Any]:
    """Return the preparation of pictures that all released weights of an architecture share."""
    config = package.get_model_config(architecture)
    if config is None:
        raise InputError(
            f"OpenCLIP has no architecture {architecture!r}. `open_clip.list_models()` lists them."
        )
    if {"hf_tokenizer_name", "hf_model_name"} & config["text_cfg"].keys() or "siglip" in architecture.lower():
        raise InputError(f"The tokenizer of {architecture} is on the Hub. {FOLDER_REMEDY}")
    tags = package.list_pretrained_tags_by_model(architecture)
    known = [package.get_pretrained_cfg(architecture, tag) for tag in tags]
    found = [{key: one[key] for key in PREPROCESSING if key in one} for one in known]
    if not found or any(one != found[0] for one in found):
        raise InputError(
            f"OpenCLIP prepares the pictures of {architecture} differently for different weights. {FOLDER_REMEDY}"
        )
    return found[0]
