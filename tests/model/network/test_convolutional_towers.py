"""Tests of image towers that return a feature map: its positions are the tokens, and its pooled output the summary."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    ConvNextConfig,
    ConvNextV2Config,
    MobileNetV2Config,
    PreTrainedConfig,
    RegNetConfig,
    ResNetConfig,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from model.encoder.encoder import Encoder
from model.network.backbones import Backbone
from model.network.inputs import PictureInput
from model.network.load_backbone import build_backbone, load_backbone
from model.network.network import Network, NetworkConfig
from model.network.processor import Preprocessor
from model.records import INTRA_RELATION, Relation

from .families import bert, distilbert, dual_encoder, efficientnet, enliven, write_dual_encoder_processors

HEIGHT, WIDTH = 64, 96
"""Size of the pictures, in pixels; not square, to tell rows from columns."""

SMALL: dict[str, Any] = {"hidden_sizes": [8, 16], "depths": [1, 1]}

TOWERS: dict[str, tuple[PreTrainedConfig, int, tuple[int, int]]] = {
    "efficientnet": (efficientnet(), 32, (8, 12)),
    "resnet": (ResNetConfig(embedding_size=8, layer_type="basic", **SMALL), 16, (8, 12)),
    "regnet": (RegNetConfig(embedding_size=8, groups_width=4, **SMALL), 16, (8, 12)),
    "convnext": (ConvNextConfig(num_stages=2, initializer_range=0.3, **SMALL), 16, (8, 12)),
    "convnextv2": (ConvNextV2Config(num_stages=2, initializer_range=0.3, **SMALL), 16, (8, 12)),
    "mobilenet_v2": (MobileNetV2Config(depth_multiplier=0.1), 1280, (2, 3)),
}
"""Tower, width and shape of its feature map for each architecture."""


@pytest.fixture(scope="module", params=TOWERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def saved(kind: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Backbone, Preprocessor]:
    """Write a dual encoder with this image tower; return the written model, and what was loaded from the folder."""
    folder = tmp_path_factory.mktemp(kind)
    torch.manual_seed(3)
    model: Any = dual_encoder(distilbert(), *TOWERS[kind][:2])
    enliven(model)
    model.save_pretrained(folder)
    write_dual_encoder_processors(folder)
    ViTImageProcessorPil(size={"height": HEIGHT, "width": WIDTH}).save_pretrained(folder)
    backbone, preprocessor = load_backbone(folder)
    return model, backbone.eval(), preprocessor


def pictures(count: int = 3) -> PictureInput:
    pixels = torch.randn(count, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    return PictureInput(pixels, torch.zeros(count, 2))


@torch.inference_mode()
def test_summary_token_equals_pooled_output_of_model(saved: tuple[Any, Backbone, Preprocessor]) -> None:
    model, backbone, _ = saved
    own = model.vision_model(pixel_values=pictures().pixels).pooler_output.flatten(1)
    tokens = backbone.image_tokens(pictures())
    torch.testing.assert_close(tokens.summary_states(), own, rtol=0, atol=1e-5)
    assert (own[0] - own[1]).norm() > 1e-3  # otherwise constant outputs would pass too
    joint = tokens.summary_states() @ backbone.image_projection()
    torch.testing.assert_close(joint, model.visual_projection(own), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_tokens_are_positions_of_feature_map_row_by_row(
    kind: str, saved: tuple[Any, Backbone, Preprocessor]
) -> None:
    model, backbone, _ = saved
    found = model.vision_model(pixel_values=pictures().pixels).last_hidden_state
    rows, columns = TOWERS[kind][2]
    tokens = backbone.image_tokens(pictures())
    assert tokens.states.shape[1] == 1 + rows * columns
    assert tokens.mask.all()
    for row in range(rows):
        for column in range(columns):
            token = tokens.states[:, 1 + row * columns + column]
            torch.testing.assert_close(token, found[:, :, row, column], rtol=0, atol=1e-5)


def test_layout_of_patches_is_that_of_feature_map(
    kind: str, saved: tuple[Any, Backbone, Preprocessor]
) -> None:
    _, backbone, preprocessor = saved
    rows, columns = TOWERS[kind][2]
    layout = backbone.patch_layout(preprocessor.blank(1), 1 + rows * columns)
    assert (layout.rows, layout.columns, layout.height, layout.width) == (rows, columns, 1.0, 1.0)


def test_vectors_do_not_depend_on_batch_even_in_training_mode(
    saved: tuple[Any, Backbone, Preprocessor],
) -> None:
    _, backbone, _ = saved
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    backbone.train()
    for layer in backbone.modules():  # dropout is random on purpose
        if "Drop" in type(layer).__name__:
            layer.eval()
    together, alone = backbone.image_tokens(pictures()), backbone.image_tokens(pictures(1))
    backbone.eval()
    torch.testing.assert_close(alone.states[0], together.states[0], rtol=0, atol=1e-3)
    assert all(torch.equal(buffer, before[name]) for name, buffer in backbone.named_buffers())


def test_attention_weights_cover_picture(kind: str, saved: tuple[Any, Backbone, Preprocessor]) -> None:
    _, backbone, preprocessor = saved
    config = NetworkConfig(objective="rcml", beta=0.6, summary_scale=1.0, backbone=backbone.config)
    relations = (INTRA_RELATION, Relation("colour", "these two items have the same colour"))
    encoder = Encoder(Network(config, backbone).eval(), preprocessor, relations, torch.device("cpu"))
    pixels = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    found = encoder.explain(None, Image.fromarray(pixels), "colour").image
    assert found is not None
    assert found.grid.shape == TOWERS[kind][2]
    assert found.grid.sum() + found.summary == pytest.approx(1.0, abs=1e-5)
    box = found.box
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx((0, 0, 1, 1), abs=0.02)


@torch.inference_mode()
@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_pooling_in_config_selects_summary(pooling: str) -> None:
    torch.manual_seed(0)
    text, vision = bert(), efficientnet()
    for config in (text, vision):
        setattr(config, "rcml_pooling", pooling)  # noqa: B010, transformers declares no such attribute
    backbone = build_backbone(dual_encoder(text, vision, width=32).config.to_diff_dict()).eval()
    tokens = backbone.image_tokens(pictures())
    states = tokens.states[:, 1:]
    expected = states[:, 0] if pooling == "first" else states.mean(dim=1)
    torch.testing.assert_close(tokens.summary_states(), expected, rtol=0, atol=1e-6)
