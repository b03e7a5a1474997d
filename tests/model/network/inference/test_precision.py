"""Tests of the precision and engine of the towers: bf16 and OpenVINO compared with torch in fp32."""

import copy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.config import TowerPrecision
from model.encoder.encoder import Encoder
from model.errors import InputError
from model.network.backbones import Backbone, ClipBackbone
from model.network.inference.int8 import computes_in_int8
from model.network.inference.packed_linear import PackedLinear, packs_weights
from model.network.inference.precision import MIN_WIDTH, computes_in_bf16, in_bf16, inference_backbone
from model.network.inputs import PictureInput, TextInput, Tokens
from model.network.load_backbone import load_backbone
from model.network.processor import Preprocessor
from tests.model.network.families import write_family

CPU = torch.device("cpu")
TEXTS = ["a red mug", "a", "mug red a red mug"]


def load(kind: str, folder: Path) -> tuple[Backbone, Preprocessor]:
    write_family(kind, folder)
    backbone, preprocessor = load_backbone(folder)
    return backbone.eval(), preprocessor


def inputs(preprocessor: Preprocessor) -> tuple[TextInput, PictureInput]:
    room = preprocessor.blank(len(TEXTS))
    for row, colour in enumerate(("red", "green", "blue")):
        preprocessor.decode(Image.new("RGB", (48, 32), colour), room, row)
    return preprocessor.tokenize(TEXTS), preprocessor.normalise(room)


def assert_same(found: Tokens, expected: Tokens, cosine: float) -> None:
    assert torch.equal(found.mask, expected.mask)
    assert torch.equal(found.summary, expected.summary)
    similarity = torch.cosine_similarity(found.states.float(), expected.states, dim=-1)
    assert float(similarity[expected.mask].min()) > cosine


@pytest.mark.parametrize("kind", ["clip", "siglip", "vision-text-dual-encoder"])
def test_openvino_tokens_match_torch(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    backbone, preprocessor = load(kind, tmp_path)
    text, pictures = inputs(preprocessor)
    other = inference_backbone(backbone, preprocessor, "fp32", "openvino", CPU)
    with torch.inference_mode():
        assert_same(other.text_tokens(text), backbone.text_tokens(text), 1 - 1e-5)
        assert_same(other.image_tokens(pictures), backbone.image_tokens(pictures), 1 - 1e-5)
    assert other.dim == backbone.dim


class Untraceable(ClipBackbone):
    """CLIP whose states are rolled by the number of tokens of the batch, which a trace records as a constant."""

    def text_tokens(self, text: TextInput) -> Tokens:
        tokens = super().text_tokens(text)
        return replace(tokens, states=tokens.states.roll(int(text.mask.sum()), dims=-1))


def test_openvino_rejects_towers_it_cannot_trace(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    backbone, preprocessor = load("clip", tmp_path)
    with pytest.raises(InputError, match=r"OpenVINO cannot run the towers .* Use --engine torch"):
        inference_backbone(Untraceable(backbone.model).eval(), preprocessor, "fp32", "openvino", CPU)


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2", "vision-text-dual-encoder"])
def test_bf16_tokens_are_close_to_fp32(kind: str, tmp_path: Path) -> None:
    backbone, preprocessor = load(kind, tmp_path)
    text, pictures = inputs(preprocessor)
    other = inference_backbone(copy.deepcopy(backbone), preprocessor, "bf16", "torch", CPU)
    assert other.dtype == torch.bfloat16
    with torch.inference_mode():
        assert_same(other.text_tokens(text), backbone.text_tokens(text), 0.999)
        assert_same(other.image_tokens(pictures), backbone.image_tokens(pictures), 0.999)


def test_auto_precision_keeps_narrow_towers_in_fp32(tmp_path: Path) -> None:
    backbone, preprocessor = load("clip", tmp_path)
    assert backbone.dim < MIN_WIDTH
    assert inference_backbone(backbone, preprocessor, "auto", "torch", CPU).dtype == torch.float32


def test_auto_precision_uses_bf16_for_wide_towers_if_supported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, preprocessor = load("clip", tmp_path)
    monkeypatch.setattr("model.network.inference.precision.MIN_WIDTH", 1)
    dtype = inference_backbone(backbone, preprocessor, "auto", "torch", CPU).dtype
    assert dtype == (torch.bfloat16 if computes_in_bf16() else torch.float32)


def test_rejects_openvino_on_cuda(tmp_path: Path) -> None:
    backbone, preprocessor = load("clip", tmp_path)
    with pytest.raises(InputError, match="Use --device cpu with --engine openvino"):
        inference_backbone(backbone, preprocessor, "fp32", "openvino", torch.device("cuda"))


def test_rejects_cuda_graphs_on_a_cpu(tmp_path: Path) -> None:
    backbone, preprocessor = load("clip", tmp_path)
    with pytest.raises(InputError, match="Use --device cuda with --engine cuda-graphs"):
        inference_backbone(backbone, preprocessor, "fp32", "cuda-graphs", CPU)


def test_openvino_encoder_matches_torch_vectors(checkpoints: dict[str, Path]) -> None:
    pytest.importorskip("openvino")
    picture = Image.new("RGB", (40, 40), "teal")
    ours, theirs = (
        Encoder.from_pretrained(checkpoints["rcml"], "cpu", engine=engine).encode_items(
            ["teal hat", "a red mug"], [picture] * 2
        )
        for engine in ("openvino", "torch")
    )
    np.testing.assert_allclose(ours.text, theirs.text, atol=1e-5)
    np.testing.assert_allclose(ours.image, theirs.image, atol=1e-5)


def test_missing_openvino_error_shows_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, preprocessor = load("clip", tmp_path)
    monkeypatch.delitem(sys.modules, "model.network.inference.openvino", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"Run `pip install 'rcml\[openvino\]'`"):
        inference_backbone(backbone, preprocessor, "fp32", "openvino", CPU)


def test_faster_clip_activation_gives_the_same_tokens(tmp_path: Path) -> None:
    backbone, preprocessor = load("clip", tmp_path)
    text, pictures = inputs(preprocessor)
    folded = copy.deepcopy(backbone).to_bfloat16()
    exact = copy.deepcopy(backbone)
    # Rescale the weights in float32, so that only the activation differs and not the precision.
    for layer, source in zip(exact.model.modules(), folded.model.modules(), strict=True):
        if isinstance(getattr(source, "activation_fn", None), torch.nn.SiLU):
            layer.activation_fn = source.activation_fn
            for weight, factor in (
                (layer.fc1.weight, 1.702),
                (layer.fc1.bias, 1.702),
                (layer.fc2.weight, 1 / 1.702),
            ):
                weight.data *= factor
            torch.testing.assert_close(source.fc1.weight.float(), layer.fc1.weight, rtol=1e-2, atol=0)
            torch.testing.assert_close(source.fc2.weight.float(), layer.fc2.weight, rtol=1e-2, atol=0)
    assert sum(isinstance(layer, torch.nn.SiLU) for layer in exact.model.modules()) == 2
    with torch.inference_mode():
        torch.testing.assert_close(exact.text_tokens(text).states, backbone.text_tokens(text).states)
        torch.testing.assert_close(
            exact.image_tokens(pictures).states, backbone.image_tokens(pictures).states
        )


@pytest.mark.parametrize(("backbone_class", "runtime"), [(ClipBackbone, "OpenVINO"), (Untraceable, "torch")])
def test_auto_engine_is_openvino_unless_it_cannot_run_the_towers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone_class: type[Backbone], runtime: str
) -> None:
    pytest.importorskip("openvino")
    backbone, preprocessor = load("clip", tmp_path)
    monkeypatch.setattr("model.network.inference.precision.MIN_WIDTH", 1)
    towers = backbone_class(backbone.model).eval()
    other = inference_backbone(towers, preprocessor, "fp32", "auto", CPU)
    assert other.runtime == runtime
    reason = "it is installed" if runtime == "OpenVINO" else "OpenVINO cannot run the towers"
    assert other.towers.startswith(f"fp32 by {runtime}: {reason}")


@pytest.mark.skipif(not computes_in_bf16() or not packs_weights(), reason="this processor has no bf16")
def test_packed_weights_give_bitwise_the_same_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, preprocessor = load("clip", tmp_path)
    text, pictures = inputs(preprocessor)
    packed = in_bf16(copy.deepcopy(backbone), CPU)
    monkeypatch.setattr("model.network.inference.precision.packs_weights", lambda: False)
    plain = in_bf16(backbone, CPU)
    layers = [isinstance(layer, PackedLinear) for layer in packed.modules()]
    assert sum(layers) == 12
    assert not any(isinstance(layer, PackedLinear) for layer in plain.modules())
    with torch.inference_mode():
        assert torch.equal(packed.text_tokens(text).states, plain.text_tokens(text).states)
        assert torch.equal(packed.image_tokens(pictures).states, plain.image_tokens(pictures).states)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_rejects_saving_towers_in_lower_precision(
    checkpoints: dict[str, Path], tmp_path: Path, precision: TowerPrecision
) -> None:
    if precision == "int8" and not computes_in_int8():
        pytest.skip("this processor has no int8 product in torch")
    encoder = Encoder.from_pretrained(checkpoints["rcml"], "cpu", precision=precision)
    assert encoder.towers == f"{precision} by torch"
    with pytest.raises(
        InputError, match=f"weights of the towers are {precision}, but a checkpoint stores float32"
    ):
        encoder.save_pretrained(tmp_path / "copy")
