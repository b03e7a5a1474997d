"""ViT-B/32 from its config, weights random, and inputs for it: what the benchmarks run on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from model.network.inputs import PictureInput, TextInput
from model.network.network import Network, NetworkConfig
from model.network.processor import MAX_TOKENS
from model.records import INTRA_RELATION, Relation

START, END = 49406, 49407
"""CLIP's own tokens; END pads as well."""

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1}

QUICK: dict[str, Any] = {
    "model_type": "clip",
    "projection_dim": 32,
    "text_config": TOWER,
    "vision_config": {**TOWER, "image_size": 32, "patch_size": 16},
}
"""A CLIP that is quick to run and shows nothing about speed."""

VIT_B_32: dict[str, Any] = {"model_type": "clip"}
"""The configuration that transformers' CLIP has by default."""


@dataclass(frozen=True)
class Items:
    """Tokenized texts, padded to CLIP's context length, and normalised pictures."""

    text: TextInput
    pictures: PictureInput


def make_network(quick: bool, beta: float = 0.6, summary_scale: float = 1.0) -> Network:
    """A network with random towers."""
    torch.manual_seed(0)
    backbone = QUICK if quick else VIT_B_32
    return Network.from_config(
        NetworkConfig(objective="rcml", beta=beta, summary_scale=summary_scale, backbone=backbone)
    )


def make_relations(count: int) -> tuple[Relation, ...]:
    """The relation of an item with itself, then others."""
    return (
        INTRA_RELATION,
        *(Relation(f"relation-{row}", f"Relation {row}.") for row in range(1, count)),
    )


def make_texts(lengths: Sequence[int] | Int[Tensor, " batch"], padded: int = MAX_TOKENS) -> TextInput:
    """Random words between START and END, `lengths` tokens in all, padded with END."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.as_tensor(lengths)
    ids = torch.randint(1000, 40_000, (len(lengths), padded), generator=generator)
    ids[:, 0] = START
    positions = torch.arange(padded)
    ids[positions >= lengths[:, None] - 1] = END
    return TextInput(ids, positions < lengths[:, None])


def make_items(network: Network, count: int) -> Items:
    """Texts of 8 to 20 tokens, as titles and categories have, and pictures of noise."""
    generator = torch.Generator().manual_seed(0)
    side: int = network.backbone.model.config.vision_config.image_size
    pixels: Float[Tensor, "batch 3 height width"] = torch.randn(count, 3, side, side, generator=generator)
    lengths = torch.randint(8, 21, (count,), generator=generator)
    return Items(make_texts(lengths), PictureInput(pixels, torch.zeros(count, 2, dtype=torch.int32)))
