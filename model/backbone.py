"""The one file that knows `transformers`: two towers with token outputs, and what goes into them.

Offers a CLIP of any size, loaded from a local folder or the Hub, or made from scratch together with a small
tokenizer trained on the catalogue's own texts. Everything above this file sees `Tokens`.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig
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
        longest = int(mask.sum(dim=1).max())
        return TextInput(self.ids[rows, :longest], mask[:, :longest])


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

    @property
    def image_size(self) -> int:
        """Side of the pictures the image tower sees, in pixels."""
        return int(self._image_processor.crop_size["height"])

    def tokenize(self, texts: Sequence[str]) -> TextInput:
        """Tokenize `texts`, cut to what the text tower can read."""
        encoded = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        return TextInput(encoded["input_ids"], encoded["attention_mask"].bool())

    def pixels(self, picture: Image.Image) -> UInt8[ndarray, "3 height width"]:
        """Resize and crop as the processor says; left as bytes, so that many fit into memory."""
        processed = self._image_processor(picture, do_rescale=False, do_normalize=False, return_tensors="np")
        return np.asarray(processed["pixel_values"][0]).round().clip(0, 255).astype(np.uint8)

    def normalise(
        self, pixels: UInt8[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Rescale and normalise on whatever device the pixels are."""
        mean = torch.tensor(self._image_processor.image_mean, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(self._image_processor.image_std, device=pixels.device).view(1, 3, 1, 1)
        return (pixels.float() * self._image_processor.rescale_factor - mean) / std


class Backbone(nn.Module):
    """CLIP with every token kept: the projections of `CLIPModel` applied to all tokens, not the summary alone.

    The "MLP" of eq. 3 is CLIP's own visual projection; that is what makes the paper's parameter count exact.
    """

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip

    @classmethod
    def pretrained(cls, name: str) -> tuple[Self, Preprocessor]:
        """Load a CLIP from a local folder or the Hub.

        Raises:
            InputError: nothing usable there.
        """
        try:
            # A path that is not there must not turn into a request to the Hub.
            local = os.sep in name and (Path(name).is_absolute() or name.startswith("."))
            clip = CLIPModel.from_pretrained(name, local_files_only=local, use_safetensors=True)
            return cls(clip), Preprocessor.load(name)
        except (OSError, ValueError) as error:
            raise InputError(
                f"No CLIP could be loaded from {name!r}: {str(error).splitlines()[0]} "
                "Name a local folder in CLIP's layout (with model.safetensors) or a Hub repository."
            ) from None

    @classmethod
    def from_scratch(cls, shape: SmallBackbone, preprocessor: Preprocessor) -> Self:
        """A new CLIP of the given shape with random weights (from torch's global generator)."""
        heads = max(1, shape.width // 32)
        common: dict[str, Any] = {
            "hidden_size": shape.width,
            "intermediate_size": 4 * shape.width,
            "num_attention_heads": heads,
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
        return cls(CLIPModel(config))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The backbone whose `config` this is, weights still random."""
        return cls(CLIPModel(CLIPConfig.from_dict(config)))

    @property
    def config(self) -> dict[str, Any]:
        """Shape of the towers, in the form of CLIP's `config.json`."""
        config: dict[str, Any] = self.clip.config.to_diff_dict()
        return config

    @property
    def dim(self) -> int:
        """Length d of every vector."""
        dim: Any = self.clip.config.projection_dim
        return int(dim)

    def text_tokens(self, text: TextInput) -> Tokens:
        """H_T: every token after the final layer norm and the text projection (eq. 3)."""
        out = self.clip.text_model(input_ids=text.ids, attention_mask=text.mask)
        # Right padding: the summary token (EOT) is the last real one.
        summary = text.mask.sum(dim=1) - 1
        return Tokens(self.clip.text_projection(out.last_hidden_state), text.mask, summary)

    def image_tokens(self, pixels: Float[Tensor, "batch 3 height width"]) -> Tokens:
        """H_I: CLS and every patch after the post layer norm and the visual projection (eq. 3)."""
        out = self.clip.vision_model(pixel_values=pixels)
        states = self.clip.visual_projection(self.clip.vision_model.post_layernorm(out.last_hidden_state))
        mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        return Tokens(states, mask, torch.zeros(len(states), dtype=torch.long, device=states.device))


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
