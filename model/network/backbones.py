"""The one file that knows `transformers`: two towers with token outputs, and what goes into them.

A backbone (CLIP, SigLIP, SigLIP 2, or any text tower beside any image tower) is loaded from a local folder or
the Hub; or a small CLIP is made from scratch, with a tokenizer trained on the catalogue's own texts. Everything
above this file sees `TextInput`, `PictureInput` and `Tokens`. To support another architecture, write a subclass
of `Backbone` and name it in `BACKBONES`.
"""

import json
import math
import re
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from jaxtyping import Bool, Float, Int, Shaped
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Siglip2Model,
    SiglipModel,
    VisionTextDualEncoderModel,
)
from transformers.activations import QuickGELUActivation

# Some releases of transformers hide the name they export where torchvision is missing; this one needs it not.
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils import logging

from model.config import SmallBackbone
from model.embeddings.attention_map import Box, Span
from model.errors import InputError

logging.disable_progress_bar()
logging.set_verbosity_error()  # what it warns of is an error here, or of no consequence

MAX_TOKENS = 77
"""Context length of CLIP's text tower; longer texts are cut."""

MOST_TOKENS = 512
"""Where texts are cut for a tower that sets no limit itself."""

TEXT_FORMAT = "text_format.json"
"""File beside the tokenizer of whatever `Preprocessor.save` wrote."""

LAST_TOKEN_TOWERS = frozenset({"siglip_text_model", "siglip2_text_model"})
"""Model types whose text is summed up by the last position, so that all texts must be of one length."""

OFFSET_POSITIONS = frozenset(
    {
        "camembert",
        "data2vec-text",
        "ibert",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Model types that number positions from `pad_token_id + 1`, and so can read that many tokens fewer."""


class TextFormat(BaseModel):
    """`text_format.json`: how a text tower wants its texts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int = Field(ge=1, description="longer texts are cut")
    fixed_length: bool = Field(description="whether all texts are padded to `max_tokens`")

    @classmethod
    def of(cls, config: PreTrainedConfig, tokenizer_limit: int) -> Self:
        """What follows from a model's `config` and from the most tokens that its tokenizer would give."""
        text = config.text_config
        positions = getattr(text, "max_position_embeddings", None) or MOST_TOKENS
        if text.model_type in OFFSET_POSITIONS:
            positions -= text.pad_token_id + 1
        return cls(
            max_tokens=min(positions, tokenizer_limit), fixed_length=text.model_type in LAST_TOKEN_TOWERS
        )


RULER = 256
"""Pixels, at most, of the shorter side of the picture that an image processor is measured by."""

QUICK_GELU = 1.702
"""The constant a of CLIP's activation, x sigmoid(ax)."""


@dataclass(frozen=True)
class TextInput:
    """Tokenized texts, padded to the longest; mask: True = a real token, or the one that sums up a text."""

    ids: Int[Tensor, "batch tokens"]
    mask: Bool[Tensor, "batch tokens"]

    def to(self, device: torch.device) -> "TextInput":
        """The same on `device`."""
        return TextInput(self.ids.to(device), self.mask.to(device))

    def take(self, rows: Int[Tensor, "taken"]) -> "TextInput":
        """The texts at `rows`, cut to the longest of them."""
        mask = _rows(self.mask, rows)
        longest = int(mask.any(dim=0).nonzero().max()) + 1
        return TextInput(_rows(self.ids, rows)[:, :longest], mask[:, :longest])


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
        return PictureInput(_rows(self.pixels, rows), _rows(self.grid, rows))


def _rows(tensor: Shaped[Tensor, "all ..."], rows: Int[Tensor, "taken"]) -> Shaped[Tensor, "taken ..."]:
    # Batches are made by threads of their own, in each of which torch would start OpenMP's: those spin while
    # they wait, at the expense of the thread that trains (25 steps on two cores: 18 s instead of 11).
    if tensor.device.type == "cpu":
        return torch.from_numpy(tensor.numpy()[rows.numpy()])
    return tensor[rows]


@dataclass(frozen=True)
class Tokens:
    """Token-level embeddings of one modality (eq. 3), in the width of its tower.

    Times the backbone's projection for this modality, `states` is H, in the joint space. `summary` is the position
    of the token that speaks for the whole: in CLIP EOT of a text, CLS of a picture.
    """

    states: Float[Tensor, "batch tokens width"]
    mask: Bool[Tensor, "batch tokens"]
    summary: Int[Tensor, "batch"]

    def summary_states(self) -> Float[Tensor, "batch width"]:
        """The summary token of each: projected, what the model itself would return, before normalisation."""
        return self.states[torch.arange(len(self.summary), device=self.summary.device), self.summary]


@dataclass(frozen=True)
class PatchLayout:
    """Where the patches of a picture lie: in rows and columns from its top left, over shares of its sides.

    A tower leaves out the rest of a side that no whole patch fits.
    """

    rows: int
    columns: int
    height: float
    width: float


class Preprocessor:
    """Tokenizer and image processor of a backbone, as they were when it was trained."""

    def __init__(self, tokenizer: Any, image_processor: Any, text_format: TextFormat) -> None:
        if tokenizer.pad_token_id is None:
            raise InputError(
                f"The tokenizer ({type(tokenizer).__name__}) has no padding token, without which texts of "
                "different lengths cannot be read together; name one in tokenizer_config.json."
            )
        self._tokenizer = tokenizer
        self._image_processor = image_processor
        self._text_format = text_format
        self._shape = self._picture_shape()

    @classmethod
    def load(cls, name: str | Path) -> Self:
        """Load what `save` wrote, or the processors of a model in the layout of `transformers`.

        Raises:
            InputError: they are not there, or of no use here.
        """
        options = {"local_files_only": is_local(name), "trust_remote_code": False}
        saved = Path(name) / TEXT_FORMAT
        try:
            # What we saved lies in a checkpoint, whose config.json is not that of a model; and there transformers
            # would guess one from the folder's name.
            config: Any = PreTrainedConfig() if saved.is_file() else _read_config(name)
            # A dual encoder has no tokenizer of its own kind: it has its text tower's.
            reader = config.text_config if config.model_type == "vision-text-dual-encoder" else config
            try:
                tokenizer: Any = AutoTokenizer.from_pretrained(name, config=reader, **options)
            except ImportError as error:
                raise InputError(
                    f"The tokenizer in {str(name)!r} needs packages that are not installed: "
                    f"run `pip install 'rcml[siglip]'`. ({_brief(error)})"
                ) from None
            image_processor = AutoImageProcessor.from_pretrained(
                name, config=config, backend="pil", **options
            )
            if saved.is_file():
                text_format = TextFormat.model_validate_json(saved.read_bytes())
            else:
                text_format = TextFormat.of(config, tokenizer.model_max_length)
        except (ImportError, OSError, ValueError) as error:
            raise InputError(
                f"No tokenizer and image processor could be loaded from {str(name)!r}: {_brief(error)}"
            ) from None
        return cls(tokenizer, image_processor, text_format)

    @classmethod
    def train(cls, texts: Iterable[str], shape: SmallBackbone) -> Self:
        """Make CLIP's own kind of tokenizer (byte-level BPE, lower case) from `texts`."""
        tokenizer = _train_tokenizer(texts, shape.vocabulary)
        side = shape.image_size
        size: dict[str, Any] = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
        text_format = TextFormat(max_tokens=MAX_TOKENS, fixed_length=False)
        return cls(tokenizer, CLIPImageProcessorPil(**size), text_format)

    def save(self, folder: Path) -> None:
        """Write the tokenizer, `preprocessor_config.json` and `text_format.json` into `folder`."""
        self._tokenizer.save_pretrained(folder)
        self._image_processor.save_pretrained(folder)
        (folder / TEXT_FORMAT).write_text(self._text_format.model_dump_json(indent=2) + "\n")

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
        encoded = self._encode(list(texts), return_attention_mask=True, return_tensors="pt")
        mask = encoded["attention_mask"].bool()
        if self._text_format.fixed_length:
            mask[:, -1] = True  # it sums up the text, real token or not
        return TextInput(encoded["input_ids"], mask)

    def spans(self, text: str) -> list[Span]:
        """The characters that each token of `tokenize([text])` stands for; none for one that is no part of the text.

        A tokenizer that cannot tell (SigLIP's) is asked word by word. Where the words, put together, are not what it
        makes of the whole, every token stands for the whole.
        """
        if self._tokenizer.is_fast:
            encoded = self._encode(text, return_offsets_mapping=True)
            return [(start, end) for start, end in encoded["offset_mapping"]]
        encoded = self._encode(text, return_special_tokens_mask=True)
        words = [(word.start(), word.end()) for word in re.finditer(r"\S+", text)]
        alone = [
            (token, span)
            for span in words
            for token in self._tokenizer(text[slice(*span)], add_special_tokens=False)["input_ids"]
        ]
        places = [place for place, special in enumerate(encoded["special_tokens_mask"]) if not special]
        ids = [encoded["input_ids"][place] for place in places]
        same = ids == [token for token, _ in alone[: len(ids)]]
        spans = [(0, 0)] * len(encoded["input_ids"])
        for order, place in enumerate(places):
            spans[place] = alone[order][1] if same else (0, len(text))
        return spans

    def _encode(self, texts: str | list[str], **options: Any) -> Any:
        return self._tokenizer(
            texts,
            padding="max_length" if self._text_format.fixed_length else "longest",
            padding_side="right",
            truncation=True,
            max_length=self._text_format.max_tokens,
            **options,
        )

    def blank(self, count: int, file: Path | None = None) -> PictureInput:
        """Room for `count` decoded pictures, in memory or in an array on disk at `file`."""
        shape = (count, *self._shape)
        if file is None:
            pixels = np.zeros(shape, np.uint8)
        else:
            pixels = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
        return PictureInput(torch.from_numpy(pixels), torch.zeros(count, 2, dtype=torch.int32))

    def decode(self, picture: Image.Image, into: PictureInput, row: int) -> None:
        """Resize and crop as the processor says; left as bytes, so that many fit into memory."""
        # A JPEG can be decoded at a fraction of its size; twice the side that is needed, as in Pillow's thumbnail.
        side = 2 * math.isqrt(math.prod(self._shape) // 3)
        picture.draft("RGB", (side, side))
        processed = self._process(picture.convert("RGB"))
        pixels = np.asarray(processed["pixel_values"][0])
        if pixels.dtype != np.uint8:  # of a processor that resizes in floating point
            pixels = pixels.round().clip(0, 255)
        # By NumPy, for the reason given in `_rows`: this is done by many threads at once.
        into.pixels.numpy()[row] = pixels
        if "spatial_shapes" in processed:
            into.grid[row] = torch.from_numpy(np.asarray(processed["spatial_shapes"][0]))

    def shown(self, width: int, height: int) -> Box:
        """The part of a picture of this size that `decode` keeps, to a pixel of what it makes of it.

        Processors resize, crop and pad by rules of their own; so one is given a picture whose red and green say where
        each pixel lies, and what comes out is read. Blue is full, or it is padding.
        """
        if len(self._shape) < 3:
            return Box(0.0, 0.0, 1.0, 1.0)  # NaFlex: the whole, resized
        shorter = min(width, height)
        scale = (
            RULER // shorter if shorter <= RULER else RULER / shorter
        )  # whole, to be rounded as the picture is
        columns, rows = round(width * scale), round(height * scale)
        ruler = np.full((rows, columns, 3), 255.0)
        across, down = (np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows
        # Either colour takes a little from the other side, or what all rows are rounded by would be the same.
        mixture = np.array([[0.9, 0.1], [0.1, 0.9]])
        ruler[:, :, :2] *= np.stack(np.meshgrid(across, down), axis=-1) @ mixture
        pixels = np.asarray(self._process(Image.fromarray(ruler.round().astype(np.uint8)))["pixel_values"][0])
        # Near the rim, a filter bends the scale.
        kept = (pixels[2] > 250) & (abs(pixels[:2] - 127.5) < 110).all(axis=0)
        y, x = np.nonzero(kept)
        places = np.column_stack([x + 0.5, y + 0.5, np.ones(len(x))])
        affine = np.linalg.lstsq(places, pixels[:2, kept].T / 255)[0] @ np.linalg.inv(mixture)
        corners = np.array([[0, 0, 1], [kept.shape[1], kept.shape[0], 1]]) @ affine
        left, top, right, bottom = (corners.round(3) + 0.0).ravel().tolist()  # no -0.0
        return Box(left, top, right, bottom)

    def normalise(self, pictures: PictureInput) -> PictureInput:
        """Rescale and normalise on whatever device the bytes are."""
        processor, pixels = self._image_processor, pictures.pixels.float()
        if processor.do_rescale:
            pixels = pixels * processor.rescale_factor
        if processor.do_normalize:
            mean, std = (
                torch.tensor(values, device=pixels.device)
                for values in (processor.image_mean, processor.image_std)
            )
            if len(self._shape) == 3:
                mean, std = mean[:, None, None], std[:, None, None]
            else:  # the values of a patch are its pixels row by row, the three colours of one side by side
                mean, std = (channels.repeat(self._shape[-1] // 3) for channels in (mean, std))
            pixels = (pixels - mean) / std
        return PictureInput(pixels, pictures.grid)

    def _process(self, picture: Image.Image) -> Mapping[str, Any]:
        processed: Mapping[str, Any] = self._image_processor(
            picture, do_rescale=False, do_normalize=False, return_tensors="np"
        )
        return processed

    def _picture_shape(self) -> tuple[int, ...]:
        """Shape of every decoded picture: `[3, height, width]` or `[patches, values]`."""
        shapes = {
            self._process(Image.new("RGB", size))["pixel_values"].shape[1:] for size in ((9, 6), (6, 9))
        }
        if len(shapes) > 1:
            raise InputError(
                f"The image processor ({type(self._image_processor).__name__}) gives pictures of different "
                f"shapes ({' and '.join(map(str, sorted(shapes)))}); set size or crop_size in "
                "preprocessor_config.json so that all are of one."
            )
        shape: tuple[int, ...] = shapes.pop()
        return shape


class Backbone(nn.Module, ABC):
    """Two towers of `transformers` with every token kept.

    `model` is theirs, with their parameter names. A subclass says what the tokens of each modality are in
    the joint space, and which of them speaks for the whole: pooling that one alone must give the features
    that the model itself would return. Where a tower ends in a matrix, its tokens are given as they are before
    it and the matrix apart: what is pooled needs to go through it once, not token by token.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model: Any = model  # its parts are its own, and torch types every attribute as a tensor
        for name, parameter in model.named_parameters(recurse=False):
            if name in {"logit_scale", "logit_bias"}:  # of the loss that it was trained with, not of ours
                parameter.requires_grad_(False)

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

    @torch.no_grad()
    def to_bfloat16(self) -> Self:
        """Cast for inference, in place; CLIP's activation takes one pass over memory instead of three.

        x sigmoid(ax) is silu(ax) / a, and a multiplication by a constant is the business of the linear layers
        before and after: on a CPU, the activation took a fifth of the time.
        """
        for layer in self.model.modules():
            if isinstance(getattr(layer, "activation_fn", None), QuickGELUActivation):
                layer.fc1.weight.mul_(QUICK_GELU)
                layer.fc1.bias.mul_(QUICK_GELU)
                layer.fc2.weight.div_(QUICK_GELU)
                layer.activation_fn = nn.SiLU()
        return self.to(torch.bfloat16)

    @abstractmethod
    def text_tokens(self, text: TextInput) -> Tokens:
        """H_T: the tokens of texts (eq. 3), before `text_projection`."""

    @abstractmethod
    def image_tokens(self, pictures: PictureInput) -> Tokens:
        """H_I: the tokens of pictures (eq. 3), before `image_projection`."""

    @abstractmethod
    def text_projection(self) -> Float[Tensor, "width dim"]:
        """What takes the tokens of texts into the joint space."""

    @abstractmethod
    def image_projection(self) -> Float[Tensor, "width dim"]:
        """What takes the tokens of pictures into the joint space."""

    def patch_layout(self, pictures: PictureInput, tokens: int) -> PatchLayout:
        """Where the patches of the first picture lie, for which the last of its `tokens` stand row by row.

        Raises:
            InputError: the image tower does not say how large its patches are.
        """
        rows, columns = pictures.grid[0].tolist()
        if rows:
            return PatchLayout(rows, columns, 1.0, 1.0)
        config: Any = self.model.config.vision_config
        patch = getattr(config, "patch_size", None)
        if not isinstance(patch, int):
            raise InputError(
                f"The image tower ({config.model_type}) has patches of the size {patch!r}, which says nothing of where "
                "they lie, so what it looks at cannot be shown."
            )
        height, width = pictures.pixels.shape[-2:]
        while (height // patch) * (width // patch) >= tokens:
            patch *= 2  # of a tower that joins four neighbours to one, stage by stage (Swin)
        rows, columns = height // patch, width // patch
        return PatchLayout(rows, columns, rows * patch / height, columns * patch / width)

    def _identity(self, width: int) -> Float[Tensor, "width width"]:
        return torch.eye(width, dtype=self.dtype, device=self.model.device)


class ProjectedBackbone(Backbone):
    """Towers whose tokens go into the joint space by a matrix each."""

    @property
    def dim(self) -> int:
        dim: Any = self.model.config.projection_dim
        return int(dim)

    def text_projection(self) -> Float[Tensor, "width dim"]:
        """The model's own."""
        return self._matrix(self.model.text_projection)

    def image_projection(self) -> Float[Tensor, "width dim"]:
        """The model's own."""
        return self._matrix(self.model.visual_projection)

    def _matrix(self, layer: nn.Linear) -> Float[Tensor, "width dim"]:
        # Applied, not read: what an adapter (LoRA) adds to the layer is no part of its weight.
        matrix: Tensor = layer(self._identity(layer.in_features))
        return matrix


class ClipBackbone(ProjectedBackbone):
    """CLIP: its projections are for all tokens, not the summary alone.

    The "MLP" of eq. 3 is CLIP's own visual projection; that is what makes the paper's parameter count exact.
    """

    def text_tokens(self, text: TextInput) -> Tokens:
        """Every token after the final layer norm."""
        out = self.model.text_model(input_ids=text.ids, attention_mask=text.mask)
        # Right padding: the summary token (EOT) is the last real one.
        summary = text.mask.sum(dim=1) - 1
        return Tokens(out.last_hidden_state, text.mask, summary)

    def image_tokens(self, pictures: PictureInput) -> Tokens:
        """CLS and every patch after the post layer norm."""
        vision = self.model.vision_model
        out = vision(pixel_values=pictures.pixels.to(self.dtype))
        states = vision.post_layernorm(out.last_hidden_state)
        mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        return Tokens(states, mask, torch.zeros(len(states), dtype=torch.long, device=states.device))


class SiglipBackbone(Backbone):
    """SigLIP: the heads of its towers applied to every token, not to the summary alone.

    A text is padded to its full length, and the state of the last position, be it of padding, is its summary:
    so the tower was trained, with no mask at all. A picture's summary is what its head, an attention pooling
    followed by an MLP, makes of all patches; the "MLP" of eq. 3 is that same head given one patch at a time.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        if not self.model.vision_model.use_head:
            raise InputError(
                "The image tower of this SigLIP has no pooling head (vision_use_head is false), so its pictures "
                "have no vector in the space of its texts; name one with a head."
            )

    @property
    def dim(self) -> int:
        dim: Any = self.model.config.vision_config.hidden_size
        return int(dim)

    def text_tokens(self, text: TextInput) -> Tokens:
        """Every token after the final layer norm and the head; the mask is for what pools them."""
        tower = self.model.text_model
        states = tower.head(tower(input_ids=text.ids).last_hidden_state)
        batch, tokens = text.ids.shape
        return Tokens(states, text.mask, torch.full((batch,), tokens - 1, device=states.device))

    def image_tokens(self, pictures: PictureInput) -> Tokens:
        """What the head makes of all patches, and what it makes of each patch alone."""
        out = self.model.vision_model(pixel_values=pictures.pixels.to(self.dtype))
        return _led_by(out.pooler_output, self._patch_states(out.last_hidden_state))

    def text_projection(self) -> Float[Tensor, "dim dim"]:
        """None: the head is no matrix."""
        return self._identity(self.dim)

    image_projection = text_projection

    def _patch_states(self, states: Float[Tensor, "batch patches dim"]) -> Float[Tensor, "batch patches dim"]:
        """The head on each patch alone: one token has all the attention, whatever the query and the keys."""
        head = self.model.vision_model.head
        attention = head.attention
        weight, bias = (whole.chunk(3)[2] for whole in (attention.in_proj_weight, attention.in_proj_bias))
        attended = attention.out_proj(F.linear(states, weight, bias))
        pooled: Tensor = attended + head.mlp(head.layernorm(attended))
        return pooled


class Siglip2Backbone(SiglipBackbone):
    """SigLIP 2 (NaFlex): SigLIP for pictures of any shape, which come as patches.

    Its fixed-size variants are plain SigLIP. The image tower sizes its position embeddings picture by picture,
    which `torch.compile` cannot take in one graph; the text tower it can.
    """

    def image_tokens(self, pictures: PictureInput) -> Tokens:
        """What the head makes of all patches, and what it makes of each patch alone."""
        patches = torch.arange(pictures.pixels.shape[1], device=pictures.grid.device)
        mask = patches < pictures.grid.prod(dim=1, keepdim=True)
        out = self.model.vision_model(
            pixel_values=pictures.pixels.to(self.dtype),
            pixel_attention_mask=mask,
            spatial_shapes=pictures.grid.cpu(),  # read number by number: fetch them from the device at once
        )
        return _led_by(out.pooler_output, self._patch_states(out.last_hidden_state), mask)


class DualEncoderBackbone(ProjectedBackbone):
    """Any text tower beside any image tower: their pooled outputs and all their tokens.

    The pooled output of many towers (BERT's, ViT's) is none of their tokens, so it leads them. A tower that pools
    nothing is summed up by its first token.
    """

    def text_tokens(self, text: TextInput) -> Tokens:
        """The pooled text and every token."""
        out = self.model.text_model(input_ids=text.ids, attention_mask=text.mask)
        return _led_by(_pooled(out), out.last_hidden_state, text.mask)

    def image_tokens(self, pictures: PictureInput) -> Tokens:
        """The pooled picture and every token."""
        tower = self.model.vision_model
        out = tower(pixel_values=pictures.pixels.to(self.dtype))
        states = out.last_hidden_state
        if tower.config.model_type == "clip_vision_model":
            # Its tokens leave it as they are before the last layer norm, which the pooled one alone is given.
            states = tower.post_layernorm(states)
        return _led_by(_pooled(out), states)


def _pooled(out: Any) -> Float[Tensor, "batch width"]:
    pooled: Tensor | None = getattr(out, "pooler_output", None)
    return out.last_hidden_state[:, 0] if pooled is None else pooled


def _led_by(
    summary: Float[Tensor, "batch width"],
    states: Float[Tensor, "batch tokens width"],
    mask: Bool[Tensor, "batch tokens"] | None = None,
) -> Tokens:
    """Tokens after a summary that is none of them."""
    states = torch.cat([summary[:, None], states], dim=1)
    if mask is None:
        mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
    else:
        mask = F.pad(mask, (1, 0), value=True)
    return Tokens(states, mask, torch.zeros(len(states), dtype=torch.long, device=states.device))


BACKBONES: Mapping[str, tuple[Any, type[Backbone]]] = {
    "clip": (CLIPModel, ClipBackbone),
    "siglip": (SiglipModel, SiglipBackbone),
    "siglip2": (Siglip2Model, Siglip2Backbone),
    "vision-text-dual-encoder": (VisionTextDualEncoderModel, DualEncoderBackbone),
}
"""What each `model_type` of a config.json is loaded as: a class of `transformers`, and ours around it."""


def load_backbone(name: str | Path) -> tuple[Backbone, Preprocessor]:
    """Load a backbone with its tokenizer and image processor from a local folder or the Hub.

    Raises:
        InputError: nothing usable there, an architecture that is not supported, or weights that do not fit it.
    """
    try:
        config = _read_config(name)
        model_class, backbone_class = BACKBONES[config.model_type]
        model, report = model_class.from_pretrained(
            name,
            config=config,
            dtype=torch.float32,  # what it is trained in, however it was stored
            local_files_only=is_local(name),
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported, and refused below
            output_loading_info=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"No backbone could be loaded from {str(name)!r}: {_brief(error)} "
            "Name a local folder in the layout of transformers (with model.safetensors) or a Hub repository."
        ) from None
    faults = [f"{key} is missing" for key in sorted(report["missing_keys"])]
    faults += [
        f"{key} is {list(found)} instead of {list(wanted)}"
        for key, found, wanted in sorted(report["mismatched_keys"])
    ]
    if faults:
        raise InputError(
            f"The weights in {str(name)!r} are not those of its config.json: {'; '.join(faults[:3])}"
            f"{f'; and {len(faults) - 3} more' if len(faults) > 3 else ''}. Save the model again, whole."
        )
    backbone, preprocessor = backbone_class(model), Preprocessor.load(name)
    _check_fit(str(name), backbone, preprocessor)
    return backbone, preprocessor


def build_backbone(config: Mapping[str, Any]) -> Backbone:
    """The backbone whose `config` this is, weights still random.

    Raises:
        InputError: an architecture that is not supported.
    """
    checked = _checked_config(config, "network.json")
    model_class, backbone_class = BACKBONES[checked.model_type]
    return backbone_class(model_class(checked))


def _read_config(name: str | Path) -> PreTrainedConfig:
    config, _ = PreTrainedConfig.get_config_dict(name, local_files_only=is_local(name))
    if not config:
        raise FileNotFoundError("It has no config.json.")
    return _checked_config(config, repr(str(name)))


def _checked_config(config: Mapping[str, Any], source: str) -> PreTrainedConfig:
    kind: Any = config.get("model_type")
    if kind not in BACKBONES:
        raise InputError(
            f"The model of {source} is of the type {kind!r}, which is not supported. "
            f"Supported types: {', '.join(BACKBONES)}."
        )
    try:
        checked: PreTrainedConfig = BACKBONES[kind][0].config_class.from_dict(dict(config))
    except (StrictDataclassError, ValueError, KeyError) as error:
        raise InputError(f"The config of {source} is wrong: {_brief(error)}") from None
    for tower in (checked.text_config, checked.vision_config):
        if not hasattr(tower, "hidden_size"):
            raise InputError(
                f"The tower {tower.model_type!r} of {source} gives no tokens of one width (it has no hidden_size), "
                "so relations would have nothing to choose from; name a transformer."
            )
    return checked


def _check_fit(name: str, backbone: Backbone, preprocessor: Preprocessor) -> None:
    """Refuse processors of another model, which would fail in the middle of the training."""
    known = backbone.model.config.text_config.vocab_size
    if preprocessor.vocabulary > known:
        raise InputError(
            f"The tokenizer in {name!r} has {preprocessor.vocabulary} tokens, the text tower knows {known}; "
            "put the tokenizer there that it was trained with."
        )
    room = preprocessor.blank(1)
    preprocessor.decode(Image.new("RGB", (64, 64)), room, 0)
    reading: Mapping[str, Callable[[], Tokens]] = {
        "tokenizer": lambda: backbone.text_tokens(preprocessor.tokenize(["a"])),
        "image processor": lambda: backbone.image_tokens(preprocessor.normalise(room)),
    }
    for processor, read in reading.items():
        try:
            with torch.inference_mode():
                read()
        except (ValueError, RuntimeError) as error:
            raise InputError(
                f"The model in {name!r} cannot read what its {processor} gives: {_brief(error)} "
                "Put the one there that it was trained with."
            ) from None


def _brief(error: Exception) -> str:
    return textwrap.shorten(str(error), 300, placeholder=" ...")


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
    first = str(name).split("/")[0]  # of a `Path`, "./x" has lost its dot
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
