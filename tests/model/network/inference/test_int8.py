"""Tests of towers in int8: layers and towers compared with fp32, independence of the batch, refusals."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from model.encoder.encoder import Encoder
from model.errors import InputError
from model.network.inference import precision
from model.network.inference.int8 import MIN_INT8_COSINE, Int8Linear, computes_in_int8, in_int8
from model.network.inference.precision import inference_backbone
from model.network.load_backbone import load_backbone
from tests.model.network.families import write_family

from .test_precision import CPU, TEXTS, assert_same, inputs

pytestmark = pytest.mark.skipif(not computes_in_int8(), reason="this processor has no int8 product in torch")


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 40), inputs=st.integers(8, 200), bias=st.booleans(), seed=st.integers(0, 99))
def test_product_differs_from_fp32_by_the_rounding_only(
    rows: int, inputs: int, bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = nn.Linear(inputs, 24, bias=bias)
    states = torch.randn(2, rows, inputs) * torch.logspace(-3, 3, rows)[:, None]
    with torch.inference_mode():
        found, expected = Int8Linear(layer)(states), layer(states)
    # Each activation is off by at most half a level of its token, and each weight by half a level of its output.
    tokens = states.abs().amax(dim=-1, keepdim=True)
    outputs = layer.weight.abs().amax(dim=1)
    bound = inputs * tokens * outputs * (0.5 / 127 + 0.5 / 64 + 0.25 / 127 / 64) + 1e-5 * tokens
    assert bool(((found - expected).abs() <= bound).all())


def test_product_of_the_largest_values_does_not_saturate() -> None:
    layer = nn.Linear(64, 8, bias=False)
    nn.init.constant_(layer.weight, 0.5)
    with torch.inference_mode():
        found = Int8Linear(layer)(torch.full((3, 64), 4.0))
    torch.testing.assert_close(found, torch.full((3, 8), 128.0))


def test_zero_tokens_give_the_bias() -> None:
    layer = nn.Linear(16, 8)
    with torch.inference_mode():
        torch.testing.assert_close(Int8Linear(layer)(torch.zeros(2, 16)), layer.bias.expand(2, 8))


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2", "vision-text-dual-encoder"])
def test_int8_tokens_are_close_to_fp32(kind: str, tmp_path: Path) -> None:
    write_family(kind, tmp_path)
    backbone, preprocessor = load_backbone(tmp_path)
    backbone.eval()
    text, pictures = inputs(preprocessor)
    before = copy.deepcopy(backbone.state_dict())
    other = inference_backbone(backbone, preprocessor, "int8", "auto", CPU)
    assert (other.precision, other.runtime) == ("int8", "torch")
    assert any(isinstance(layer, Int8Linear) for layer in other.modules())
    with torch.inference_mode():
        assert_same(other.text_tokens(text), backbone.text_tokens(text), 0.98)
        assert_same(other.image_tokens(pictures), backbone.image_tokens(pictures), 0.98)
    for name, weight in backbone.state_dict().items():
        assert torch.equal(weight, before[name])


def test_vector_does_not_depend_on_the_batch(checkpoints: dict[str, Path]) -> None:
    encoder = Encoder.from_pretrained(checkpoints["rcml"], "cpu", precision="int8")
    pictures = [Image.new("RGB", (40, 40), colour) for colour in ("red", "navy", "white")]
    together = encoder.encode_items(TEXTS, pictures)
    for row, (text, picture) in enumerate(zip(TEXTS, pictures, strict=True)):
        alone = encoder.encode_items([text], [picture])
        # Torch may add the terms of a float product in another order; the integers themselves are the same.
        np.testing.assert_allclose(alone.text[0], together.text[row], atol=2e-3)
        np.testing.assert_allclose(alone.image[0], together.image[row], atol=2e-3)


def test_rejects_towers_that_int8_distorts(tmp_path: Path) -> None:
    write_family("clip", tmp_path)
    backbone, preprocessor = load_backbone(tmp_path)
    text, pictures = inputs(preprocessor)
    with pytest.raises(InputError, match=r"lowest cosine to fp32 is \S+, and 1.1 is required"):
        in_int8(backbone.eval(), text, pictures, 1.1)


def test_rejects_int8_by_openvino_and_on_cuda(tmp_path: Path) -> None:
    write_family("clip", tmp_path)
    backbone, preprocessor = load_backbone(tmp_path)
    with pytest.raises(InputError, match="Use --engine torch with --precision int8"):
        inference_backbone(backbone, preprocessor, "int8", "openvino", CPU)
    with pytest.raises(InputError, match="Use --device cpu with --precision int8"):
        inference_backbone(backbone, preprocessor, "int8", "auto", torch.device("cuda"))


@pytest.mark.parametrize(
    ("least", "towers"),
    [
        (MIN_INT8_COSINE, "int8 by torch: this processor has no bf16"),
        (
            1.1,
            "fp32 by torch: this processor has no bf16, and int8 was refused (The towers are not exact enough",
        ),
    ],
)
def test_auto_precision_without_bf16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: float, towers: str
) -> None:
    write_family("clip", tmp_path)
    backbone, preprocessor = load_backbone(tmp_path)
    monkeypatch.setattr(precision, "MIN_WIDTH", 1)
    monkeypatch.setattr(precision, "MIN_AUTO_COSINE", least)
    monkeypatch.setattr(precision, "computes_in_bf16", lambda: False)
    monkeypatch.setattr(precision, "find_spec", lambda name: None)
    found = inference_backbone(backbone.eval(), preprocessor, "auto", "auto", CPU)
    assert found.towers.startswith(towers)
