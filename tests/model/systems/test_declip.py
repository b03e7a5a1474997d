"""Tests of DeCLIP against a forward pass on weights in the released layout."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from model.errors import InputError
from model.records import Relation
from model.systems.declip import open_declip
from model.systems.released_processors import IMAGENET_MEAN, IMAGENET_STD, clip_tokenizer

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

TEXT_WIDTH, WIDTH, SIDE, PATCH = 32, 128, 224, 112
NAMES = ("ln_1", "ln_2", "c_fc", "c_proj")


def released() -> Weights:
    text = "encode_text"
    return {
        "logit_scale": torch.ones(1),
        f"{text}.token_embedding.weight": random(VOCABULARY + 1, TEXT_WIDTH),
        f"{text}.positional_embedding": random(CONTEXT, TEXT_WIDTH),
        **blocks(f"{text}.transformer.resblocks", TEXT_WIDTH, 2, NAMES),
        **norm(f"{text}.ln_final", TEXT_WIDTH),
        **linear(f"{text}.text_projection", TEXT_WIDTH, DIM),
        "visual.class_embedding": random(WIDTH),
        "visual.conv1.weight": random(WIDTH, 3, PATCH, PATCH) / 10,
        "visual.positional_embedding": random(5, WIDTH),
        **norm("visual.ln_pre", WIDTH),
        **blocks("visual.transformer.resblocks", WIDTH, 1, NAMES),
        **norm("visual.ln_post", WIDTH),
        "visual.proj": random(WIDTH, DIM),
        **linear("projector.linear1", DIM, 8),
    }


@pytest.fixture(scope="module")
def weights() -> Weights:
    torch.manual_seed(0)
    return released()


@pytest.fixture
def folder(weights: Weights, tmp_path: Path) -> Path:
    distributed = {f"module.{name}": weight for name, weight in weights.items()}
    torch.save({"model": distributed, "last_iter": 7}, tmp_path / "vitb32.pth.tar")
    write_merges(tmp_path)
    return tmp_path


def text_vector(weights: Weights, ids: list[int]) -> Tensor:
    run = Pass(weights, 1e-5, quick=True, names=NAMES)
    states = weights["encode_text.token_embedding.weight"][torch.tensor([ids])]
    states = states + weights["encode_text.positional_embedding"][: len(ids)]
    states = run.blocks(states, "encode_text.transformer.resblocks", 8, causal=True)
    return run.linear(run.norm(states, "encode_text.ln_final")[:, -1], "encode_text.text_projection")


def image_vector(weights: Weights, path: Path) -> Tensor:
    run = Pass(weights, 1e-5, quick=True, names=NAMES)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    picture = pixels(path, 256, SIDE, Image.Resampling.BILINEAR, mean, std)
    patches = F.conv2d(picture, weights["visual.conv1.weight"], stride=PATCH).flatten(2).transpose(1, 2)
    states = torch.cat([weights["visual.class_embedding"].expand(1, 1, -1), patches], dim=1)
    states = run.norm(states + weights["visual.positional_embedding"], "visual.ln_pre")
    states = run.blocks(states, "visual.transformer.resblocks", WIDTH // 64, causal=False)
    return run.norm(states[:, 0], "visual.ln_post") @ weights["visual.proj"]


def test_vectors_equal_those_of_the_released_model(weights: Weights, folder: Path) -> None:
    picture = draw_picture(folder / "picture.png", 1)
    system = open_declip(folder, "cpu")
    found = system.encode(["red hat", "hat"], [picture, None], [Relation("same", "as red")])
    tokenizer = clip_tokenizer(folder, "<|mask|>")
    ids = [tokenizer(f"as red {text}")["input_ids"] for text in ("red hat", "hat")]
    expected = np.concatenate([unit(text_vector(weights, one)) for one in ids])
    np.testing.assert_allclose(found.text[:, 0], expected, atol=2e-5)
    np.testing.assert_allclose(found.image[0], unit(image_vector(weights, picture)), atol=2e-5)
    assert not found.image[1].any()


def test_resnet_release_is_rejected(folder: Path) -> None:
    torch.save({"module.visual.layer1.0.conv1.weight": torch.ones(1)}, folder / "vitb32.pth.tar")
    with pytest.raises(InputError, match="ResNet-50, which is not supported"):
        open_declip(folder, "cpu")


def test_merges_of_another_vocabulary_are_rejected(weights: Weights, folder: Path) -> None:
    short = {**weights, "encode_text.token_embedding.weight": random(VOCABULARY, TEXT_WIDTH)}
    torch.save(short, folder / "vitb32.pth.tar")
    with pytest.raises(InputError, match=f"has {VOCABULARY} tokens, but the tokenizer has {VOCABULARY + 1}"):
        open_declip(folder, "cpu")
