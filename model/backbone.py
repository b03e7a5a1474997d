"""The one file that knows `transformers`: two towers with token outputs, and what goes into them.

A backbone is loaded from a local folder or the Hub, or made from scratch together with a small tokenizer
trained on the catalogue's own texts. Everything above this file sees `TextInput`, `PictureInput` and `Tokens`.
To support another architecture, write a subclass of `Backbone` and name it in `BACKBONES`.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from numpy import ndarray
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
    PreTrainedModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils import logging

from .config import SmallBackbone
from .errors import InputError

logging.disable_progress_bar()

MAX_TOKENS = 77
"""Context length of CLIP's text tower; longer texts are cut."""


@dataclass(frozen=True)
class TextInput:
    """Tokenized texts, padded to the longest; mask: True = a real token."""

    ids: Int[Tensor, "batch tokens"]
    mask: Bool[Tensor, "batch tokens"]

    def to(self, device: torch.device) -> "TextInput":
        """The same on `device`."""
        return TextInput(self.ids.to(device), self.mask.to(device))

    def take(self, rows: Int[Tensor, "taken"]) -> "TextInput":
        """The texts at `rows`, cut to the longest of them."""
        mask = self.mask[rows]
        longest = int(mask.any(dim=0).nonzero().max()) + 1
        return TextInput(self.ids[rows, :longest], mask[:, :longest])


@dataclass(frozen=True)
class PictureInput:
    """Decoded pictures: bytes as they are kept, floats once `Preprocessor.normalise` has seen them.

    A tower for pictures of one size takes `[batch, 3, height, width]`. One for pictures of any shape takes
    `[batch, patches, values]`, of which picture i fills the first `grid[i, 0] * grid[i, 1]`; `grid` holds
    rows and columns of patches, and is left at 0 by the former.
    """

    pixels: Shaped[Tensor, "batch ..."]
    grid: Int[Tensor, "batch 2"]

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device) -> "PictureInput":
        """The same on `device`; from pinned memory without waiting for it."""
        return PictureInput(
            self.pixels.to(device, non_blocking=True), self.grid.to(device, non_blocking=True)
        )

    def take(self, rows: Int[Tensor, "taken"]) -> "PictureInput":
        """The pictures at `rows`."""
        return PictureInput(self.pixels[rows], self.grid[rows])


@dataclass(frozen=True)
class Tokens:
    """Token-level embeddings H of one modality (eq. 3), in the joint space.

    `summary` is the position of the token that speaks for the whole: EOT of a text, CLS of a picture.
    """

    states: Float[Tensor, "batch tokens dim"]
    mask: Bool[Tensor, "batch tokens"]
    summary: Int[Tensor, "batch"]

    def summary_states(self) -> Float[Tensor, "batch dim"]:
        """The summary token of each: what CLIP itself would return, before normalisation."""
        return self.states[torch.arange(len(self.summary), device=self.summary.device), self.summary]


class Preprocessor:
    """Tokenizer and image processor of a backbone, as they were when it was trained."""

    def __init__(self, tokenizer: CLIPTokenizer, image_processor: CLIPImageProcessorPil) -> None:
        self._tokenizer = tokenizer
        self._image_processor = image_processor

    @classmethod
    def load(cls, name: str | Path) -> Self:
        """Load from a folder or Hub name in CLIP's layout."""
        return cls(CLIPTokenizer.from_pretrained(name), CLIPImageProcessorPil.from_pretrained(name))

    @classmethod
    def train(cls, texts: Iterable[str], shape: SmallBackbone) -> Self:
        """Make CLIP's own kind of tokenizer (byte-level BPE, lower case) from `texts`."""
        tokenizer = _train_tokenizer(texts, shape.vocabulary)
        side = shape.image_size
        size: dict[str, Any] = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
        return cls(tokenizer, CLIPImageProcessorPil(**size))

    def save(self, folder: Path) -> None:
        """Write the tokenizer and `preprocessor_config.json` into `folder`."""
        self._tokenizer.save_pretrained(folder)
        self._image_processor.save_pretrained(folder)

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return len(self._tokenizer)

    @property
    def special_ids(self) -> dict[str, Any]:
        """The ids that a text tower's config must know."""
        return {
            "bos_token_id": self._tokenizer.bos_token_id,
            "eos_token_id": self._tokenizer.eos_token_id,
            "pad_token_id": self._tokenizer.pad_token_id,
        }

    def tokenize(self, texts: Sequence[str]) -> TextInput:
        """Tokenize `texts`, cut to what the text tower can read."""
        encoded = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        return TextInput(encoded["input_ids"], encoded["attention_mask"].bool())

    def blank(self, count: int, file: Path | None = None) -> PictureInput:
        """Room for `count` decoded pictures, in memory or in an array on disk at `file`."""
        size = self._image_processor.crop_size
        shape = (count, 3, size["height"], size["width"])
        if file is None:
            pixels = np.zeros(shape, np.uint8)
        else:
            pixels = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
        return PictureInput(torch.from_numpy(pixels), torch.zeros(count, 2, dtype=torch.int32))

    def decode(self, picture: Image.Image, into: PictureInput, row: int) -> None:
        """Resize and crop as the processor says; left as bytes, so that many fit into memory."""
        size = self._image_processor.crop_size
        picture.draft("RGB", (size["width"], size["height"]))
        processed = self._image_processor(
            picture.convert("RGB"), do_rescale=False, do_normalize=False, return_tensors="np"
        )
        pixels: UInt8[ndarray, "..."] = np.asarray(processed["pixel_values"][0]).round().clip(0, 255)
        into.pixels[row] = torch.from_numpy(pixels.astype(np.uint8))

    def normalise(self, pictures: PictureInput) -> PictureInput:
        """Rescale and normalise on whatever device the bytes are."""
        pixels, device = pictures.pixels, pictures.pixels.device
        mean = torch.tensor(self._image_processor.image_mean, device=device).view(1, 3, 1, 1)
        std = torch.tensor(self._image_processor.image_std, device=device).view(1, 3, 1, 1)
        return PictureInput(
            (pixels.float() * self._image_processor.rescale_factor - mean) / std, pictures.grid
        )


class Backbone(nn.Module, ABC):
    """Two towers of `transformers` with every token kept.

    `model` is theirs, with their parameter names. A subclass says what the tokens of each modality are in
    the joint space, and which of them speaks for the whole: pooling that one alone must give the features
    that the model itself would return.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model: Any = model  # its parts are its own, and torch types every attribute as a tensor

    @property
    def config(self) -> dict[str, Any]:
        """Shape of the towers, in the form of the model's own `config.json`."""
        config: dict[str, Any] = self.model.config.to_diff_dict()
        return config

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    @abstractmethod
    def dim(self) -> int:
        """Length d of every vector."""

    @abstractmethod
    def text_tokens(self, text: TextInput) -> Tokens:
        """H_T: the tokens of texts in the joint space (eq. 3)."""

    @abstractmethod
    def image_tokens(self, pictures: PictureInput) -> Tokens:
        """H_I: the tokens of pictures in the joint space (eq. 3)."""


class ClipBackbone(Backbone):
    """CLIP: its projections applied to all tokens, not the summary alone.

    The "MLP" of eq. 3 is CLIP's own visual projection; that is what makes the paper's parameter count exact.
    """

    @property
    def dim(self) -> int:
        dim: Any = self.model.config.projection_dim
        return int(dim)

    def text_tokens(self, text: TextInput) -> Tokens:
        """Every token after the final layer norm and the text projection."""
        out = self.model.text_model(input_ids=text.ids, attention_mask=text.mask)
        # Right padding: the summary token (EOT) is the last real one.
        summary = text.mask.sum(dim=1) - 1
        return Tokens(self.model.text_projection(out.last_hidden_state), text.mask, summary)

    def image_tokens(self, pictures: PictureInput) -> Tokens:
        """CLS and every patch after the post layer norm and the visual projection."""
        vision = self.model.vision_model
        out = vision(pixel_values=pictures.pixels.to(self.dtype))
        states = self.model.visual_projection(vision.post_layernorm(out.last_hidden_state))
        mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        return Tokens(states, mask, torch.zeros(len(states), dtype=torch.long, device=states.device))


BACKBONES: Mapping[str, tuple[type[PreTrainedModel], type[Backbone]]] = {"clip": (CLIPModel, ClipBackbone)}
"""What each `model_type` of a config.json is loaded as."""


def load_backbone(name: str | Path) -> tuple[Backbone, Preprocessor]:
    """Load a backbone with its tokenizer and image processor from a local folder or the Hub.

    Raises:
        InputError: nothing usable there.
    """
    try:
        clip = CLIPModel.from_pretrained(name, local_files_only=is_local(name), use_safetensors=True)
        return ClipBackbone(clip), Preprocessor.load(name)
    except (OSError, ValueError) as error:
        raise InputError(
            f"No CLIP could be loaded from {str(name)!r}: {str(error).splitlines()[0]} "
            "Name a local folder in CLIP's layout (with model.safetensors) or a Hub repository."
        ) from None


def build_backbone(config: Mapping[str, Any]) -> Backbone:
    """The backbone whose `config` this is, weights still random."""
    return ClipBackbone(CLIPModel(CLIPConfig.from_dict(dict(config))))


def small_backbone(shape: SmallBackbone, preprocessor: Preprocessor) -> Backbone:
    """A new CLIP of the given shape with random weights (from torch's global generator)."""
    common: dict[str, Any] = {
        "hidden_size": shape.width,
        "intermediate_size": 4 * shape.width,
        "num_attention_heads": max(1, shape.width // 32),
        "projection_dim": shape.width,
    }
    text = CLIPTextConfig(
        vocab_size=preprocessor.vocabulary,
        max_position_embeddings=MAX_TOKENS,
        num_hidden_layers=shape.text_layers,
        **common,
        **preprocessor.special_ids,
    )
    vision = CLIPVisionConfig(
        image_size=shape.image_size,
        patch_size=shape.patch_size,
        num_hidden_layers=shape.image_layers,
        **common,
    )
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=shape.width
    )
    return ClipBackbone(CLIPModel(config))


def is_local(name: str | Path) -> bool:
    """Whether `name` means a folder on this machine: a path that is not there must not go to the Hub.

    A Hub name is `name` or `owner/name`. Whatever starts with a folder that exists here is a path.
    """
    path = Path(name)
    first = path.parts[0] if path.parts else ""
    return path.is_absolute() or first in {".", "..", "~"} or len(path.parts) > 2 or Path(first).exists()


def _train_tokenizer(texts: Iterable[str], vocabulary: int) -> CLIPTokenizer:
    blank = CLIPTokenizer()
    symbols = sorted(ByteLevel.alphabet())
    # CLIP's BPE marks the last byte of a word. The marked bytes are named here as "special" so that all of them
    # exist, or an unseen last letter would be lost, and have fixed ids: left to the trainer, the ids of those it
    # meets, and the merges that depend on them, differ from run to run.
    marked = [f"{symbol}</w>" for symbol in symbols]
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[blank.bos_token, blank.eos_token, *marked],
        initial_alphabet=symbols,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend = blank.backend_tokenizer
    backend.train_from_iterator(texts, trainer)
    learnt = json.loads(backend.to_str())["model"]
    merges: Any = [tuple(merge) for merge in learnt["merges"]]  # typed as strings, taken as pairs
    return CLIPTokenizer(vocab=learnt["vocab"], merges=merges, model_max_length=MAX_TOKENS)
