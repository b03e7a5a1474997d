"""The towers: CLIP, SigLIP, SigLIP 2, or any text tower beside any image tower, each with all its token outputs.

To support another architecture, write a subclass of `Backbone` and name it in `BACKBONES`.
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

from model.errors import InputError

from .inputs import PatchLayout, PictureInput, TextInput, Tokens

# What transformers warns of is an error here, or of no consequence.
logging.disable_progress_bar()
logging.set_verbosity_error()

QUICK_GELU = 1.702
"""The constant a of CLIP's activation, x sigmoid(ax)."""


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
        """Encode texts into H_T: their tokens (eq. 3), before `text_projection`."""

    @abstractmethod
    def image_tokens(self, pictures: PictureInput) -> Tokens:
        """Encode pictures into H_I: their tokens (eq. 3), before `image_projection`."""

    @abstractmethod
    def text_projection(self) -> Float[Tensor, "width dim"]:
        """Return the matrix that takes the tokens of texts into the joint space."""

    @abstractmethod
    def image_projection(self) -> Float[Tensor, "width dim"]:
        """Return the matrix that takes the tokens of pictures into the joint space."""

    def patch_layout(self, pictures: PictureInput, tokens: int) -> PatchLayout:
        """Locate the patches of the first picture, for which the last of its `tokens` stand row by row.

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
        """Return the model's own."""
        return self._matrix(self.model.text_projection)

    def image_projection(self) -> Float[Tensor, "width dim"]:
        """Return the model's own."""
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
        """Encode texts: every token after the final layer norm."""
        out = self.model.text_model(input_ids=text.ids, attention_mask=text.mask)
        # Right padding: the summary token (EOT) is the last real one.
        summary = text.mask.sum(dim=1) - 1
        return Tokens(out.last_hidden_state, text.mask, summary)

    def image_tokens(self, pictures: PictureInput) -> Tokens:
        """Encode pictures: CLS and every patch after the post layer norm."""
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
        """Encode texts: every token after the final layer norm and the head; the mask is for what pools them."""
        tower = self.model.text_model
        states = tower.head(tower(input_ids=text.ids).last_hidden_state)
        batch, tokens = text.ids.shape
        return Tokens(states, text.mask, torch.full((batch,), tokens - 1, device=states.device))

    def image_tokens(self, pictures: PictureInput) -> Tokens:
        """Apply the head to all patches together, and to each patch alone."""
        out = self.model.vision_model(pixel_values=pictures.pixels.to(self.dtype))
        return _led_by(out.pooler_output, self._patch_states(out.last_hidden_state))

    def text_projection(self) -> Float[Tensor, "dim dim"]:
        """Return the identity: the head is no matrix."""
        return self._identity(self.dim)

    image_projection = text_projection

    def _patch_states(self, states: Float[Tensor, "batch patches dim"]) -> Float[Tensor, "batch patches dim"]:
        """Apply the head to each patch alone: one token has all the attention, whatever the query and the keys."""
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
        """Apply the head to all patches together, and to each patch alone."""
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
        """Encode texts: the pooled output and every token."""
        out = self.model.text_model(input_ids=text.ids, attention_mask=text.mask)
        return _led_by(_pooled(out), out.last_hidden_state, text.mask)

    def image_tokens(self, pictures: PictureInput) -> Tokens:
        """Encode pictures: the pooled output and every token."""
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
    """Put a summary that is none of the tokens before them."""
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
