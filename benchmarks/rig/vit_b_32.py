"""ViT-B/32 from its config with random weights, and random inputs for it."""

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
"""CLIP's start and end tokens; END is also the padding token."""

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1}

QUICK: dict[str, Any] = {
    "model_type": "clip",
    "projection_dim": 32,
    "text_config": TOWER,
    "vision_config": {**TOWER, "image_size": 32, "patch_size": 16},
}
"""Config of a tiny CLIP model that runs quickly; its timings say nothing about ViT-B/32."""

VIT_B_32: dict[str, Any] = {"model_type": "clip"}
"""Config of ViT-B/32, which is the default of CLIP in transformers."""


@dataclass(frozen=True)
class Items:
    """Tokenized texts, padded to CLIP's context length, and normalised pictures."""

    text: TextInput
    pictures: PictureInput


def make_network(quick: bool, beta: float = 0.6, summary_scale: float = 1.0) -> Network:
    """Create a network with random weights; `quick` makes it tiny."""
    torch.manual_seed(0)
    backbone = QUICK if quick else VIT_B_32
    return Network.from_config(
        NetworkConfig(objective="rcml", beta=beta, summary_scale=summary_scale, backbone=backbone)
    )


def make_relations(count: int) -> tuple[Relation, ...]:
    """Create `count` relations, of which the first is the intra-sample relation."""
    return (
        INTRA_RELATION,
        *(Relation(f"relation-{row}", f"Relation {row}.") for row in range(1, count)),
    )


def make_texts(lengths: Sequence[int] | Int[Tensor, " batch"], padded: int = MAX_TOKENS) -> TextInput:
    """Create texts of random tokens between START and END, padded with END.

    `lengths` gives the number of tokens of each text, including START and the first END.
    """
    generator = torch.Generator().manual_seed(0)
    lengths = torch.as_tensor(lengths)
    ids = torch.randint(1000, 40_000, (len(lengths), padded), generator=generator)
    ids[:, 0] = START
    positions = torch.arange(padded)
    ids[positions >= lengths[:, None] - 1] = END
    return TextInput(ids, positions < lengths[:, None], torch.zeros_like(ids))


def make_items(network: Network, count: int) -> Items:
    """Create texts of 8 to 20 tokens, about as long as a title with categories, and pictures of noise."""
    generator = torch.Generator().manual_seed(0)
    side: int = network.backbone.model.config.vision_config.image_size
    pixels: Float[Tensor, "batch 3 height width"] = torch.randn(count, 3, side, side, generator=generator)
    lengths = torch.randint(8, 21, (count,), generator=generator)
    return Items(make_texts(lengths), PictureInput(pixels, torch.zeros(count, 2, dtype=torch.int32)))
