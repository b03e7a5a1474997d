"""Towers that return all of their tokens: CLIP, SigLIP, SigLIP 2, or any text tower paired with any image tower.

To support another architecture, write a subclass of `Backbone` and add it to `BACKBONES`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import (
    CLIPModel,
    PreTrainedModel,
    Siglip2Model,
    SiglipModel,
    VisionTextDualEncoderModel,
)
from transformers.activations import QuickGELUActivation
from transformers.utils import logging

from model.config import TowerPrecision
from model.errors import InputError

from .inputs import PatchLayout, PictureInput, TextInput, Tokens

# Everything that transformers warns about is either an error here or irrelevant.
logging.disable_progress_bar()
logging.set_verbosity_error()

QUICK_GELU = 1.702
"""Constant in CLIP's activation function, x sigmoid(1.702 x)."""

POOLING_KEY = "rcml_pooling"
"""Key that `rcml backbone make` adds to the config of a tower in a dual encoder."""

POOLINGS = ("pooled", "first", "mean")
"""Summaries of a tower in a dual encoder: its pooled output, the state of its first token, or the mean state."""


class Backbone(nn.Module, ABC):
    """Two towers of `transformers` that return every token.

    `model` is the `transformers` model with its own parameter names. A subclass defines the tokens of each modality in
    the joint space, and which of them is the summary token: pooling only the summary token must give the features that
    the model itself returns. If the last step of a tower is a multiplication by a matrix, the subclass returns the
    tokens without this step, and the matrix separately. The matrix is then applied once to the pooled vector instead of
    to every token.
    """

    precision: TowerPrecision = "fp32"
    """Precision that the towers compute in."""

    runtime = "torch"
    """Name of the library that executes the towers."""

    records_pictures = True
    """Whether a CUDA graph of the image tower can be recorded, because the tower never waits for the device."""

    reason = ""
    """Reason for the precision and the library, if `auto` chose them."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model: Any = model  # Any, because torch annotates every attribute of a module as a tensor
        for name, parameter in model.named_parameters(recurse=False):
            if name in {"logit_scale", "logit_bias"}:  # used only by the original loss of the model
                parameter.requires_grad_(False)

    @property
    def config(self) -> dict[str, Any]:
        """Config of the towers, in the format of the model's own `config.json`."""
        config: dict[str, Any] = self.model.config.to_diff_dict()
        return config

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def towers(self) -> str:
        """Precision and library of the towers in words, with the reason if there is one."""
        return f"{self.precision} by {self.runtime}{self.reason and f': {self.reason}'}"

    @property
    @abstractmethod
    def dim(self) -> int:
        """Length d of every vector."""

    def to_bfloat16(self) -> Self:
        """Cast to bf16 for inference, in place, with a faster activation."""
        self.precision = "bf16"
        return self.fold_activation().to(torch.bfloat16)

    @torch.no_grad()
    def fold_activation(self) -> Self:
        """Replace CLIP's activation with a faster equivalent, in place, for inference.

        With a = 1.702, x sigmoid(ax) equals silu(ax) / a, and the linear layers before and after the activation absorb
        the factors a and 1 / a. The activation then takes one pass over memory instead of three. On a CPU, the original
        activation accounted for a fifth of the encoding time.
        """
        for layer in self.model.modules():
            if isinstance(getattr(layer, "activation_fn", None), QuickGELUActivation):
                layer.fc1.weight.mul_(QUICK_GELU)
                layer.fc1.bias.mul_(QUICK_GELU)
                layer.fc2.weight.div_(QUICK_GELU)
                layer.activation_fn = nn.SiLU()
        return self

    @abstractmethod
    def text_tokens(self, text: TextInput) -> Tokens:
        """Encode texts into their tokens (eq. 3); `text_projection` maps them to H_T."""

    @abstractmethod
    def image_tokens(self, pictures: PictureInput) -> Tokens:
        """Encode pictures into their tokens (eq. 3); `image_projection` maps them to H_I."""

    @abstractmethod
    def text_projection(self) -> Float[Tensor, "width dim"]:
        """Return the matrix that maps text tokens into the joint space."""

    @abstractmethod
    def image_projection(self) -> Float[Tensor, "width dim"]:
        """Return the matrix that maps image tokens into the joint space."""

    def projection_weights(self) -> tuple[nn.Parameter, ...]:
        """Return the weights of both projections; none if the towers end in something other than a matrix."""
        return ()

    def patch_layout(self, pictures: PictureInput, tokens: int) -> PatchLayout:
        """Return the layout of the patches of the first picture.

        `tokens` is the number of tokens of that picture. The last tokens are its patches, row by row.

        The layout of a convolutional tower is that of its feature map, found by encoding a blank picture.

        Raises:
            InputError: the image tower returns no feature map, and its config has no single patch size.
        """
        rows, columns = pictures.grid[0].tolist()
        if rows:
            return PatchLayout(rows, columns, 1.0, 1.0)
        config: Any = self.model.config.vision_config
        patch = getattr(config, "patch_size", None)
        if not isinstance(patch, int):
            shape = self._output_shape(pictures)
            if len(shape) == 4:
                return PatchLayout(shape[2], shape[3], 1.0, 1.0)
            raise InputError(
                f"The image tower ({config.model_type}) has patch size {patch!r}, so the positions of its patches are "
                "unknown. Attention weights require a convolutional tower, or one with a single integer as its "
                "patch_size."
            )
        height, width = pictures.pixels.shape[-2:]
        while (height // patch) * (width // patch) >= tokens:
            patch *= 2  # Swin merges four neighbouring patches into one at each stage
        rows, columns = height // patch, width // patch
        return PatchLayout(rows, columns, rows * patch / height, columns * patch / width)

    @torch.no_grad()
    def _output_shape(self, pictures: PictureInput) -> torch.Size:
        blank = torch.zeros(1, *pictures.pixels.shape[1:], dtype=self.dtype, device=self.model.device)
        shape: torch.Size = self.model.vision_model(pixel_values=blank).last_hidden_state.shape
        return shape

    def _identity(self, width: int) -> Float[Tensor, "width width"]:
        return torch.eye(width, dtype=self.dtype, device=self.model.device)


class ProjectedBackbone(Backbone):
    """Towers whose tokens are mapped into the joint space by one matrix per tower."""

    @property
    def dim(self) -> int:
        """Length d of every vector."""
        dim: Any = self.model.config.projection_dim
        return int(dim)

    def text_projection(self) -> Float[Tensor, "width dim"]:
        """Return the text projection of the model."""
        return self._matrix(self.model.text_projection)

    def image_projection(self) -> Float[Tensor, "width dim"]:
        """Return the visual projection of the model."""
        return self._matrix(self.model.visual_projection)

    def projection_weights(self) -> tuple[nn.Parameter, ...]:
        """Return the weights of both projections."""
        return self.model.text_projection.weight, self.model.visual_projection.weight

    def _matrix(self, layer: nn.Linear) -> Float[Tensor, "width dim"]:
        # Apply the layer instead of reading its weight, which does not include an adapter (LoRA).
        matrix: Tensor = layer(self._identity(layer.in_features))
        return matrix


class ClipBackbone(ProjectedBackbone):
    """CLIP with its projections applied to all tokens instead of only to the summary token.

    The "MLP" of eq. 3 is CLIP's own visual projection. This interpretation matches the paper's parameter count exactly.
    """

    def text_tokens(self, text: TextInput) -> Tokens:
        """Return every token of the texts after the final layer norm."""
        out = self.model.text_model(input_ids=text.ids, attention_mask=text.mask)
        # Texts are padded on the right, so the summary token (EOT) is the last real token.
        summary = text.mask.sum(dim=1) - 1
        return Tokens(out.last_hidden_state, text.mask, summary)

    def image_tokens(self, pictures: PictureInput) -> Tokens:
        """Return CLS and every patch of the pictures after the post layer norm."""
        vision = self.model.vision_model
        out = vision(pixel_values=pictures.pixels.to(self.dtype))
        states = vision.post_layernorm(out.last_hidden_state)
        mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        return Tokens(states, mask, torch.zeros(len(states), dtype=torch.long, device=states.device))


class SiglipBackbone(Backbone):
    """SigLIP with the heads of its towers applied to every token instead of only to the summary token.

    Texts are padded to the full length, and the summary is the state of the last position, even if it is padding. The
    tower was trained in this way, without a mask. The summary of a picture is the output of the head for all patches;
    the head is an attention pooling followed by an MLP. The "MLP" of eq. 3 is the same head applied to one patch at a
    time.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        if not self.model.vision_model.use_head:
            raise InputError(
                "The image tower of this SigLIP model has no pooling head (vision_use_head is false), so it cannot map "
                "pictures into the space of the texts. Use a model with a pooling head."
            )

    @property
    def dim(self) -> int:
        """Length d of every vector."""
        dim: Any = self.model.config.vision_config.hidden_size
        return int(dim)

    def text_tokens(self, text: TextInput) -> Tokens:
        """Return every token of the texts after the final layer norm and the head.

        The tower does not use the mask, which is only for later pooling.
        """
        tower = self.model.text_model
        states = tower.head(tower(input_ids=text.ids).last_hidden_state)
        batch, tokens = text.ids.shape
        return Tokens(states, text.mask, torch.full((batch,), tokens - 1, device=states.device))

    def image_tokens(self, pictures: PictureInput) -> Tokens:
        """Return the output of the head for all patches together, followed by its output for each patch."""
        out = self.model.vision_model(pixel_values=pictures.pixels.to(self.dtype))
        return _led_by(out.pooler_output, self._patch_states(out.last_hidden_state))

    def text_projection(self) -> Float[Tensor, "dim dim"]:
        """Return the identity matrix, because the head is not a matrix and has already been applied."""
        return self._identity(self.dim)

    image_projection = text_projection

    def _patch_states(self, states: Float[Tensor, "batch patches dim"]) -> Float[Tensor, "batch patches dim"]:
        """Apply the head to each patch separately.

        The attention weight of a single token is always 1, so its query and key are not computed.
        """
        head = self.model.vision_model.head
        attention = head.attention
        weight, bias = (whole.chunk(3)[2] for whole in (attention.in_proj_weight, attention.in_proj_bias))
        attended = attention.out_proj(F.linear(states, weight, bias))
        pooled: Tensor = attended + head.mlp(head.layernorm(attended))
        return pooled


class Siglip2Backbone(SiglipBackbone):
    """SigLIP 2 (NaFlex): SigLIP for pictures of any shape, given as patches.

    The fixed-size variants of SigLIP 2 are plain SigLIP models. The image tower resizes its position embeddings for
    each picture, so `torch.compile` cannot capture it in one graph. The text tower compiles into one graph.
    """

    records_pictures = False

    def image_tokens(self, pictures: PictureInput) -> Tokens:
        """Return the output of the head for all patches together, followed by its output for each patch."""
        patches = torch.arange(pictures.pixels.shape[1], device=pictures.grid.device)
        mask = patches < pictures.grid.prod(dim=1, keepdim=True)
        out = self.model.vision_model(
            pixel_values=pictures.pixels.to(self.dtype),
            pixel_attention_mask=mask,
            # The tower reads the grids one number at a time. A single copy to the CPU avoids many small transfers.
            spatial_shapes=pictures.grid.cpu(),
        )
        return _led_by(out.pooler_output, self._patch_states(out.last_hidden_state), mask)


class DualEncoderBackbone(ProjectedBackbone):
    """Any text tower paired with any image tower, with a summary and all of their tokens.

    In many towers (BERT, ViT) the summary is not one of the tokens, so it is put before them. `rcml_pooling` in the
    config of a tower says what its summary is (`POOLINGS`). Without this key, it is the pooled output of the tower, or
    else its first token. The feature map of a convolutional tower becomes one token per position, row by row.
    """

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation mode, but keep the statistics of batch norm fixed.

        Statistics of the current batch would make the vectors of an item depend on the other items of its micro-batch.
        The running statistics are buffers, which the saved state of a run does not contain.
        """
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                layer.eval()
        return self

    def text_tokens(self, text: TextInput) -> Tokens:
        """Return the summary and every token of the texts."""
        tower = self.model.text_model
        out = tower(input_ids=text.ids, attention_mask=text.mask)
        return _led_by(
            _summary(tower, out, out.last_hidden_state, text.mask), out.last_hidden_state, text.mask
        )

    def image_tokens(self, pictures: PictureInput) -> Tokens:
        """Return the summary and every token of the pictures."""
        tower = self.model.vision_model
        out = tower(pixel_values=pictures.pixels.to(self.dtype))
        states = out.last_hidden_state
        if states.ndim == 4:  # feature map: [batch, width, rows, columns]
            states = states.flatten(2).mT
        if tower.config.model_type == "clip_vision_model":
            # This tower applies its last layer norm only to the pooled output.
            states = tower.post_layernorm(states)
        return _led_by(_summary(tower, out, states), states)


def _summary(
    tower: Any,
    out: Any,
    states: Float[Tensor, "batch tokens width"],
    mask: Bool[Tensor, "batch tokens"] | None = None,
) -> Float[Tensor, "batch width"]:
    """Return the summary of each row of the output `out` of a tower.

    `states` are its tokens, and `mask` is True for those that are not padding (None: all).
    """
    pooled: Tensor | None = getattr(out, "pooler_output", None)
    pooling = getattr(tower.config, POOLING_KEY, None)
    if pooling == "mean":
        if mask is None:
            return states.mean(dim=1)
        weights = mask.to(states.dtype)[..., None]
        return (states * weights).sum(dim=1) / weights.sum(dim=1)
    if pooling == "first" or pooled is None:
        return states[:, 0]
    return pooled.flatten(1)  # convolutional towers return [batch, width, 1, 1]


def _led_by(
    summary: Float[Tensor, "batch width"],
    states: Float[Tensor, "batch tokens width"],
    mask: Bool[Tensor, "batch tokens"] | None = None,
) -> Tokens:
    """Prepend a summary that is not one of the tokens."""
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
"""Classes for each supported `model_type` in a config.json: the `transformers` model, and its `Backbone`."""
