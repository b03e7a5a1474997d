"""Tests of ImageBind against a forward pass on weights in the released layout."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from model.errors import InputError
from model.records import Relation
from model.systems.imagebind import open_imagebind
from model.systems.released_processors import clip_tokenizer

from .releases import (
    CONTEXT,
    DIM,
    VOCABULARY,
    Pass,
    Weights,
    blocks,
    draw_picture,
    norm,
    pixels,
    random,
    unit,
    write_merges,
)

WIDTH, SIDE, PATCH = 32, 28, 14
NAMES = ("norm_1", "norm_2", "fc1", "fc2")
MEAN, STD = (
    torch.tensor([0.48145466, 0.4578275, 0.40821073]),
    torch.tensor([0.26862954, 0.26130258, 0.27577711]),
)


def released() -> Weights:
    text, vision = "modality_preprocessors.text", "modality_preprocessors.vision"
    return {
        f"{text}.token_embedding.weight": random(VOCABULARY, WIDTH),
        f"{text}.pos_embed": random(1, CONTEXT, WIDTH),
        f"{text}.mask": torch.zeros(CONTEXT, CONTEXT),
        **blocks("modality_trunks.text.blocks", WIDTH, 2, NAMES),
        **norm("modality_heads.text.proj.0", WIDTH),
        "modality_heads.text.proj.1.weight": random(DIM, WIDTH),
        f"{vision}.cls_token": random(1, 1, WIDTH),
        f"{vision}.rgbt_stem.proj.1.weight": random(WIDTH, 3, 2, PATCH, PATCH),
        f"{vision}.pos_embedding_helper.pos_embed": random(1, 5, WIDTH),
        **norm("modality_trunks.vision.pre_transformer_layer.0", WIDTH),
        **blocks("modality_trunks.vision.blocks", WIDTH, 2, NAMES),
        **norm("modality_heads.vision.0", WIDTH),
        "modality_heads.vision.2.weight": random(DIM, WIDTH),
        "modality_heads.audio.2.weight": random(DIM, WIDTH),
        "modality_postprocessors.text.1.log_logit_scale": torch.tensor(2.0),
    }


@pytest.fixture(scope="module")
def weights() -> Weights:
    torch.manual_seed(0)
    return released()


@pytest.fixture
def folder(weights: Weights, tmp_path: Path) -> Path:
    torch.save(weights, tmp_path / "imagebind_huge.pth")
    write_merges(tmp_path)
    return tmp_path


def text_vector(weights: Weights, ids: list[int]) -> Tensor:
    run = Pass(weights, 1e-6, quick=False, names=NAMES)
    padded = torch.zeros(1, CONTEXT, dtype=torch.long)
    padded[0, : len(ids)] = torch.tensor(ids)
    states = weights["modality_preprocessors.text.token_embedding.weight"][padded]
    states = states + weights["modality_preprocessors.text.pos_embed"]
    states = run.blocks(states, "modality_trunks.text.blocks", 16, causal=True)
    end = run.norm(states[:, padded.argmax()], "modality_heads.text.proj.0")
    return run.linear(end, "modality_heads.text.proj.1")


def image_vector(weights: Weights, path: Path) -> Tensor:
    run = Pass(weights, 1e-6, quick=False, names=NAMES)
    still = pixels(path, SIDE, SIDE, Image.Resampling.BICUBIC, MEAN, STD)
    video = torch.stack([still, still], dim=2)
    kernel = weights["modality_preprocessors.vision.rgbt_stem.proj.1.weight"]
    patches = torch.nn.functional.conv3d(video, kernel, stride=(2, PATCH, PATCH)).flatten(2).transpose(1, 2)
    states = torch.cat([weights["modality_preprocessors.vision.cls_token"], patches], dim=1)
    states = states + weights["modality_preprocessors.vision.pos_embedding_helper.pos_embed"]
    states = run.norm(states, "modality_trunks.vision.pre_transformer_layer.0")
    states = run.blocks(states, "modality_trunks.vision.blocks", 16, causal=False)
    return run.linear(run.norm(states[:, 0], "modality_heads.vision.0"), "modality_heads.vision.2")


def test_vectors_equal_those_of_the_released_model(weights: Weights, folder: Path) -> None:
    picture = draw_picture(folder / "picture.png", 1)
    system = open_imagebind(folder, "cpu")
    found = system.encode(["red hat", "hat"], [picture, None], [Relation("same", "as red")])
    ids = [clip_tokenizer(folder)(f"as red {text}")["input_ids"] for text in ("red hat", "hat")]
    expected = np.concatenate([unit(text_vector(weights, one)) for one in ids])
    np.testing.assert_allclose(found.text[:, 0], expected, atol=2e-5)
    np.testing.assert_allclose(found.image[0], unit(image_vector(weights, picture)), atol=2e-5)
    assert not found.image[1].any()


def test_parameters_are_those_of_the_two_towers(weights: Weights, folder: Path) -> None:
    kernel = weights["modality_preprocessors.vision.rgbt_stem.proj.1.weight"].numel()
    unused = ("mask", "log_logit_scale", "audio")
    towers = sum(one.numel() for name, one in weights.items() if not any(word in name for word in unused))
    scale = 1  # the class of transformers has its own logit scale
    assert open_imagebind(folder, "cpu").parameters == towers - kernel // 2 + scale


def test_weights_without_the_image_tower_are_rejected(weights: Weights, folder: Path) -> None:
    torch.save(
        {name: one for name, one in weights.items() if "vision" not in name}, folder / "imagebind_huge.pth"
    )
    with pytest.raises(InputError, match=r"lack vision_model\.embeddings\.patch_embedding\.weight"):
        open_imagebind(folder, "cpu")
