"""Tests of recorded calls of an encoder: the vectors and tokens are those of plain calls, whatever the batch size."""

import numpy as np
import pytest
import torch
from PIL import Image

from model.config import Conditioning, SmallBackbone
from model.encoder.encoder import Encoder
from model.network.backbones import Siglip2Backbone
from model.network.load_backbone import small_backbone
from model.network.network import Network, NetworkConfig
from model.network.processor import Preprocessor
from model.records import INTRA_RELATION, Relation
from tests.model.network.inference.test_cuda_graphs import Refuser, Repeater

TEXTS = [
    "red mug",
    "",
    "a green kite in a black tent. Garden",
    "hat",
    "blue lamp, striped. Home, Kitchen",
] * 8
RELATIONS = (
    INTRA_RELATION,
    Relation("a", "Bought for the garden."),
    Relation("b", "Bought for the kitchen."),
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["paper", "centred+bias"])
def parts(request: pytest.FixtureRequest) -> tuple[Network, Preprocessor]:
    conditioning: Conditioning = request.param
    torch.manual_seed(0)
    shape = SmallBackbone(image_size=32, patch_size=16)
    preprocessor = Preprocessor.train([*TEXTS, *(relation.description for relation in RELATIONS)], shape)
    backbone = small_backbone(shape, preprocessor)
    config = NetworkConfig(
        objective="rcml",
        beta=0.6,
        summary_scale=1.0,
        conditioning=conditioning,
        normalise_tokens=conditioning != "paper",
        backbone=backbone.config,
    )
    return Network(config, backbone).eval(), preprocessor


def pictures(count: int) -> list[Image.Image | None]:
    rng = np.random.default_rng(0)
    drawn = [Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)) for _ in range(count)]
    return [None if place % 3 == 1 else one for place, one in enumerate(drawn)]


@pytest.mark.parametrize("count", [1, 5, 40])
@pytest.mark.parametrize("tokens", [False, True])
def test_recorded_calls_give_the_vectors_and_tokens_of_plain_calls(
    parts: tuple[Network, Preprocessor], count: int, tokens: bool
) -> None:
    network, preprocessor = parts
    plain = Encoder(network, preprocessor, RELATIONS, CPU)
    recorded = Encoder(network, preprocessor, RELATIONS, CPU, Repeater())
    for texts in (TEXTS[:count], TEXTS[-count:]):
        expected = plain.read_items(texts, pictures(count), tokens)()
        found = recorded.read_items(texts, pictures(count), tokens)()
        np.testing.assert_allclose(found.text, expected.text, atol=1e-5)
        np.testing.assert_allclose(found.image, expected.image, atol=1e-5)
        assert (found.tokens is None) == (not tokens)
        if expected.tokens is not None and found.tokens is not None:
            for mine, theirs in (
                (found.tokens.text, expected.tokens.text),
                (found.tokens.image, expected.tokens.image),
            ):
                assert mine.starts.tolist() == theirs.starts.tolist()
                np.testing.assert_allclose(mine.states.astype(float), theirs.states.astype(float), atol=2e-3)


def test_few_shapes_are_recorded(parts: tuple[Network, Preprocessor]) -> None:
    recorder = Repeater()
    encoder = Encoder(*parts, RELATIONS, CPU, recorder)
    for count in (1, 3, 4, 5, 7, 8):
        encoder.encode_texts(TEXTS[:count])
    assert recorder.recorded == 3  # of 1, 4 and 8 texts of up to 16 tokens


def test_long_texts_are_not_recorded(
    parts: tuple[Network, Preprocessor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.encoder.item_outputs.MAX_RECORDED_TOKENS", 16)
    recorder = Repeater()
    encoder = Encoder(*parts, RELATIONS, CPU, recorder)
    long = " ".join(["red mug"] * 20)
    np.testing.assert_allclose(
        encoder.encode_texts([long]), Encoder(*parts, RELATIONS, CPU).encode_texts([long]), atol=1e-5
    )
    assert recorder.recorded == 0
    encoder.encode_texts(["red mug"])
    assert recorder.recorded == 1


def test_changed_weights_are_recorded_anew(parts: tuple[Network, Preprocessor]) -> None:
    network, preprocessor = parts
    encoder = Encoder(network, preprocessor, RELATIONS, CPU, Repeater())
    before = encoder.encode_texts(TEXTS[:2])
    with torch.no_grad():
        network.attention.output.mul_(-1)
    np.testing.assert_allclose(
        encoder.encode_texts(TEXTS[:2]),
        Encoder(network, preprocessor, RELATIONS, CPU).encode_texts(TEXTS[:2]),
        atol=1e-5,
    )
    assert np.abs(encoder.encode_texts(TEXTS[:2]) - before).max() > 0.1


def test_image_tower_that_waits_for_the_device_is_not_recorded(
    parts: tuple[Network, Preprocessor], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not Siglip2Backbone.records_pictures
    monkeypatch.setattr(type(parts[0].backbone), "records_pictures", False)
    recorder = Repeater()
    found = Encoder(*parts, RELATIONS, CPU, recorder).read_items(["hat"], pictures(1))()
    assert recorder.recorded == 1  # of the text
    expected = Encoder(*parts, RELATIONS, CPU).read_items(["hat"], pictures(1))()
    np.testing.assert_allclose(found.image, expected.image, atol=1e-5)


def test_network_that_cannot_be_recorded_encodes_without(parts: tuple[Network, Preprocessor]) -> None:
    network, preprocessor = parts
    expected = Encoder(network, preprocessor, RELATIONS, CPU).encode_texts(TEXTS[:3])
    found = Encoder(network, preprocessor, RELATIONS, CPU, Refuser()).encode_texts(TEXTS[:3])
    np.testing.assert_allclose(found, expected, atol=1e-5)
