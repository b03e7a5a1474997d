"""Towers of a pretrained CLIP, SigLIP or SigLIP 2 of `transformers`, and of every model that fits their classes."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from model.config import Device
from model.data.pictures.images import load_picture
from model.errors import InputError
from model.network.backbones import Backbone
from model.network.devices import choose_device
from model.network.inputs import Tokens
from model.network.load_backbone import load_backbone
from model.network.processor import Preprocessor

from .tower_system import TowerSystem

MODEL_TYPES = {"clip": {"clip"}, "siglip": {"siglip"}, "siglip2": {"siglip", "siglip2"}}
"""Model types of `config.json` by family; the fixed-size variants of SigLIP 2 have the type of SigLIP."""

ENDLESS_TEXT = "a " * 5_000
"""Text longer than any text tower reads."""


class PretrainedTowers:
    """Both towers of a backbone, with the features that the original model returns.

    `text_bias` is added to the text features; only DeCLIP has one.
    """

    def __init__(
        self,
        backbone: Backbone,
        preprocessor: Preprocessor,
        device: torch.device,
        text_bias: Float[Tensor, " dim"] | None = None,
    ) -> None:
        self.backbone = backbone.eval().to(device)
        self._preprocessor = preprocessor
        self._device = device
        self._text_bias = None if text_bias is None else text_bias.to(device)
        special = len(preprocessor.tokenizer("")["input_ids"])
        self.room = preprocessor.tokenize([ENDLESS_TEXT]).ids.shape[1] - special

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self.backbone.dim

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, without special tokens."""
        encoded = self._preprocessor.tokenizer(list(texts), add_special_tokens=False)
        return [len(ids) for ids in encoded["input_ids"]]

    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
        """Return the text features of the original model."""
        tokens = self.backbone.text_tokens(self._preprocessor.tokenize(texts).to(self._device))
        features = _features(tokens, self.backbone.text_projection())
        return features if self._text_bias is None else features + self._text_bias

    def encode_pictures(self, paths: Sequence[Path]) -> Float[Tensor, "pictures dim"]:
        """Return the image features of the original model."""
        pictures = self._preprocessor.blank(len(paths))
        for row, path in enumerate(paths):
            self._preprocessor.decode(load_picture(path), pictures, row)
        tokens = self.backbone.image_tokens(self._preprocessor.normalise(pictures.to(self._device)))
        return _features(tokens, self.backbone.image_projection())

    def system(self, name: str) -> TowerSystem:
        """Return the system of these towers."""
        parameters = sum(weight.numel() for weight in self.backbone.parameters())
        return TowerSystem(name, self, self, parameters + (0 if self._text_bias is None else self.dim))


def open_pretrained(family: str, name: str, device: Device) -> TowerSystem:
    """Open a CLIP, SigLIP or SigLIP 2 in a local folder or on the Hub.

    Raises:
        InputError: nothing can be loaded, or the model belongs to another family.
    """
    backbone, preprocessor = load_backbone(name)
    found = backbone.config["model_type"]
    if found not in MODEL_TYPES[family]:
        raise InputError(f"{name!r} is a model of type {found!r}, not {family!r}. Name it as {found}:{name}.")
    return PretrainedTowers(backbone, preprocessor, choose_device(device)).system(f"{family}:{name}")


def _features(tokens: Tokens, projection: Float[Tensor, "width dim"]) -> Float[Tensor, "batch dim"]:
    return tokens.summary_states() @ projection
