"""Tests of UniCL against a forward pass on weights in the released layout."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from model.errors import InputError
from model.records import Relation
from model.systems.released_processors import IMAGENET_MEAN, IMAGENET_STD, clip_tokenizer
from model.systems.unicl import open_unicl

from .releases import (
    CONTEXT,
    DIM,
    VOCABULARY,
    Pass,
    Weights,
    blocks,
    draw_picture,
    linear,
    norm,
    pixels,
    random,
    unit,
    write_merges,
)

WIDTH, WINDOW, PATCH = 32, 7, 4
EMBEDDING, DEPTHS, HEADS = 4, (2, 1, 1, 1), (1, 2, 2, 4)
NAMES = ("ln_1", "ln_2", "c_fc", "c_proj")


def released() -> Weights:
    found: Weights = {
        "logit_scale": torch.tensor(1.0),
        "text_encoder.token_embedding.weight": random(VOCABULARY, WIDTH),
        "text_encoder.positional_embedding": random(CONTEXT, WIDTH),
        **blocks("text_encoder.resblocks", WIDTH, 2, NAMES),
        **norm("text_encoder.ln_final", WIDTH),
        "text_projection": random(WIDTH, DIM),
        "image_encoder.patch_embed.proj.weight": random(EMBEDDING, 3, PATCH, PATCH),
        "image_encoder.patch_embed.proj.bias": random(EMBEDDING),
        **norm("image_encoder.patch_embed.norm", EMBEDDING),
        **norm("image_encoder.norm", 8 * EMBEDDING),
        "image_projection": random(8 * EMBEDDING, DIM),
    }
    for stage, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        width = EMBEDDING * 2**stage
        for layer in range(depth):
            block = f"image_encoder.layers.{stage}.blocks.{layer}"
            found |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
            found |= linear(f"{block}.attn.qkv", width, 3 * width) | linear(
                f"{block}.attn.proj", width, width
            )
            found |= linear(f"{block}.mlp.fc1", width, 4 * width) | linear(
                f"{block}.mlp.fc2", 4 * width, width
            )
            found[f"{block}.attn.relative_position_bias_table"] = random((2 * WINDOW - 1) ** 2, heads)
            found[f"{block}.attn.relative_position_index"] = torch.zeros(WINDOW**2, WINDOW**2)
        if stage < 3:
            found |= norm(f"image_encoder.layers.{stage}.downsample.norm", 4 * width)
            found[f"image_encoder.layers.{stage}.downsample.reduction.weight"] = random(2 * width, 4 * width)
    return found


@pytest.fixture(scope="module")
def weights() -> Weights:
    torch.manual_seed(0)
    return released()


@pytest.fixture
def folder(weights: Weights, tmp_path: Path) -> Path:
    torch.save({"model": weights, "epoch": 3}, tmp_path / "unicl.pth")
    write_merges(tmp_path)
    return tmp_path


def text_vector(weights: Weights, ids: list[int]) -> Tensor:
    run = Pass(weights, 1e-12, quick=True, names=NAMES)
    states = weights["text_encoder.token_embedding.weight"][torch.tensor([ids])]
    states = states + weights["text_encoder.positional_embedding"][: len(ids)]
    states = run.norm(run.blocks(states, "text_encoder.resblocks", 8, causal=True), "text_encoder.ln_final")
    return states[:, -1] @ weights["text_projection"]


def swin_attention(run: Pass, states: Tensor, block: str, shift: int) -> Tensor:
    """Attend among all patches at once, with a mask instead of windows."""
    side, width = states.shape[1], states.shape[3]
    table = run.weights[f"{block}.attn.relative_position_bias_table"]
    heads = table.shape[1]
    query, key, value = (
        part.reshape(side * side, heads, width // heads).transpose(0, 1)
        for part in run.linear(states, f"{block}.attn.qkv").chunk(3, dim=-1)
    )
    place = (torch.arange(side) - shift) % side  # position of each row or column after the cyclic shift
    row, column = (axis.flatten() for axis in torch.meshgrid(place, place, indexing="ij"))
    same = torch.ones(side**2, side**2, dtype=torch.bool)
    for axis in (row, column):
        group = axis // WINDOW * 2 + (axis >= side - shift) * (shift > 0)
        same &= group[:, None] == group[None]
    rise, run_right = (
        ((axis % WINDOW)[:, None] - (axis % WINDOW)[None]) + WINDOW - 1 for axis in (row, column)
    )
    bias = table[rise * (2 * WINDOW - 1) + run_right].permute(2, 0, 1)
    scores = query @ key.transpose(1, 2) * (width // heads) ** -0.5 + bias
    mixed = scores.masked_fill(~same, float("-inf")).softmax(dim=-1) @ value
    return run.linear(mixed.transpose(0, 1).reshape(1, side, side, width), f"{block}.attn.proj")


def image_vector(weights: Weights, path: Path) -> Tensor:
    run = Pass(weights, 1e-5, quick=False, names=("norm1", "norm2", "fc1", "fc2"))
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    picture = pixels(path, 256, 224, Image.Resampling.BICUBIC, mean, std)
    patch = "image_encoder.patch_embed.proj"
    states = F.conv2d(picture, weights[f"{patch}.weight"], weights[f"{patch}.bias"], stride=PATCH)
    states = run.norm(states.permute(0, 2, 3, 1), "image_encoder.patch_embed.norm")
    for stage in range(4):
        for layer, block in enumerate(run.layers(f"image_encoder.layers.{stage}.blocks")):
            shift = WINDOW // 2 if layer % 2 and states.shape[1] > WINDOW else 0
            states = states + swin_attention(run, run.norm(states, f"{block}.norm1"), block, shift)
            inner = run.gelu(run.linear(run.norm(states, f"{block}.norm2"), f"{block}.mlp.fc1"))
            states = states + run.linear(inner, f"{block}.mlp.fc2")
        if stage < 3:
            four = [states[:, down::2, right::2] for right in (0, 1) for down in (0, 1)]
            merge = f"image_encoder.layers.{stage}.downsample"
            states = run.linear(run.norm(torch.cat(four, dim=-1), f"{merge}.norm"), f"{merge}.reduction")
    return run.norm(states, "image_encoder.norm").mean(dim=(1, 2)) @ weights["image_projection"]


def test_vectors_equal_those_of_the_released_model(weights: Weights, folder: Path) -> None:
    picture = draw_picture(folder / "picture.png", 1)
    found = open_unicl(folder, "cpu").encode(
        ["red hat", "hat"], [picture, None], [Relation("same", "as red")]
    )
    ids = [clip_tokenizer(folder)(f"as red {text}")["input_ids"] for text in ("red hat", "hat")]
    expected = np.concatenate([unit(text_vector(weights, one)) for one in ids])
    np.testing.assert_allclose(found.text[:, 0], expected, atol=2e-5)
    np.testing.assert_allclose(found.image[0], unit(image_vector(weights, picture)), atol=2e-5)
    assert not found.image[1].any()


def test_weights_without_swin_are_rejected(weights: Weights, folder: Path) -> None:
    other = {name: one for name, one in weights.items() if "relative_position_bias_table" not in name}
    torch.save({"model": other}, folder / "unicl.pth")
    with pytest.raises(InputError, match="no Swin image tower"):
        open_unicl(folder, "cpu")
