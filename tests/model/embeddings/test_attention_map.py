"""Attention weights compared with eq. 4, their mapping to words and patches, and the heat map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy import ndarray
from PIL import Image
from transformers import BertConfig, SwinConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from model.embeddings.attention_map import Box, PatchWeights, TextWeights, weigh_words
from model.embeddings.heat_map import CROPPED_BRIGHTNESS, HEAT_COLOURS, heat_map, interpolate_patches
from model.encoder.encoder import Encoder
from model.encoder.explain import relative_entropy
from model.errors import InputError, UnknownRelationError
from model.network.backbones import Backbone
from model.network.inputs import PictureInput, Tokens
from model.network.load_backbone import load_backbone, small_backbone
from model.network.network import Network, NetworkConfig
from model.network.processor import Preprocessor, TextFormat
from model.records import INTRA_RELATION, Relation
from tests.model.network.families import (
    CONVOLUTIONAL,
    FAMILIES,
    LAYERS,
    SIDE,
    TEXT_LENGTH,
    WORDS,
    dual_encoder,
    word_tokenizer,
    write_dual_encoder_processors,
    write_family,
)
from tests.model.planted import TINY

RELATIONS = (INTRA_RELATION, Relation("colour", "these two items have the same colour"))
BETA, SUMMARY_SCALE = 0.4, 3.0
WHOLE = Box(0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Layout:
    """Token layout of a model family, for the text "red mug" and for a picture.

    `words` contains the token positions of each word. `summary` is the position of the summary token of the text.
    `leading` is the number of image tokens before the patches.
    """

    words: tuple[list[int], list[int]]
    summary: int
    leading: int


LAYOUTS: Mapping[str, Layout] = {
    # Text: the words are between BOS and EOS. Image: CLS comes first.
    "clip": Layout(([1], [2]), 3, 1),
    # Text: the summary token is at the last position, which is padding. Image: the pooling head's output comes first.
    "siglip": Layout(([0], [1]), TEXT_LENGTH - 1, 1),
    # The same as SigLIP, but each letter and the space are separate tokens.
    "siglip2": Layout(([0, 1, 2], [4, 5, 6]), TEXT_LENGTH - 1, 1),
    # Text: the pooled text, CLS, the words, SEP. Image: the pooled picture and CLS come first.
    "vision-text-dual-encoder": Layout(([2], [3]), 0, 2),
    # Text: as above. Image: the pooled picture comes first, then the positions of the feature map.
    CONVOLUTIONAL: Layout(([2], [3]), 0, 1),
}


def sharpened(backbone: Backbone, preprocessor: Preprocessor) -> Encoder:
    """Return an encoder with clearly uneven random attention and four different attention matrices."""
    config = NetworkConfig(objective="rcml", beta=BETA, summary_scale=SUMMARY_SCALE, backbone=backbone.config)
    network = Network(config, backbone).eval()
    random = torch.Generator().manual_seed(7)
    for matrix in network.attention.parameters():
        matrix.data += 0.3 * torch.randn(matrix.shape, generator=random)
    return Encoder(network, preprocessor, RELATIONS, torch.device("cpu"))


@pytest.fixture(scope="module", params=FAMILIES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def encoder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp(kind)
    write_family(kind, folder)
    backbone, preprocessor = load_backbone(folder)
    return sharpened(backbone.eval(), preprocessor)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("clip")
    write_family("clip", folder)
    backbone, preprocessor = load_backbone(folder)
    return sharpened(backbone.eval(), preprocessor)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8))


@torch.inference_mode()
def joint(tokens: Tokens, projection: torch.Tensor) -> ndarray:
    """Compute H of the only item: its tokens in the joint space, without padding."""
    states: ndarray = (tokens.states[0][tokens.mask[0]] @ projection).double().numpy()
    return states


def text_states(encoder: Encoder, text: str) -> tuple[ndarray, list[int]]:
    """Compute H of a text without padding, and return it with the token position of each row."""
    backbone = encoder.network.backbone
    with torch.inference_mode():
        tokens = backbone.text_tokens(encoder.preprocessor.tokenize([text]))
        return joint(tokens, backbone.text_projection()), tokens.mask[0].nonzero()[:, 0].tolist()


def decoded(encoder: Encoder, picture: Image.Image) -> PictureInput:
    room = encoder.preprocessor.blank(1)
    encoder.preprocessor.decode(picture, room, 0)
    return room


def picture_states(encoder: Encoder, picture: Image.Image) -> ndarray:
    backbone, pixels = encoder.network.backbone, decoded(encoder, picture)
    with torch.inference_mode():
        tokens = backbone.image_tokens(encoder.preprocessor.normalise(pixels))
        return joint(tokens, backbone.image_projection())


def attention(encoder: Encoder, states: ndarray, relation: int, summary: int) -> ndarray:
    """Compute A of eq. 4 as it is written in the paper."""
    module = encoder.network.attention
    query, key = (matrix.detach().double().numpy() for matrix in (module.query, module.key))
    relevance = (states @ key.T) @ (query @ encoder.relation_vectors[relation])
    scores = (1 - BETA) * relevance / len(query) ** 0.5
    scores[summary] += BETA * SUMMARY_SCALE * RELATIONS[relation].intra
    return np.asarray(np.exp(scores) / np.exp(scores).sum())


def vector(encoder: Encoder, states: ndarray, weights: ndarray) -> ndarray:
    """Compute z of eq. 4."""
    module = encoder.network.attention
    value, output = (matrix.detach().double().numpy() for matrix in (module.value, module.output))
    mixed = weights @ states @ value.T @ output
    return np.asarray(mixed / np.linalg.norm(mixed))


def words(weights: TextWeights) -> list[str]:
    return [word.text for word in weights.words]


def explained(encoder: Encoder, text: str) -> TextWeights:
    found = encoder.explain(text, None, "colour").text
    assert found is not None
    return found


def test_every_family_has_a_layout() -> None:
    assert set(LAYOUTS) == set(FAMILIES)


@pytest.mark.parametrize("relation", [0, 1])
def test_word_weights_match_pooling_of_network(relation: int, kind: str, encoder: Encoder) -> None:
    states, places = text_states(encoder, "red mug")
    layout = LAYOUTS[kind]
    weights = attention(encoder, states, relation, places.index(layout.summary))
    found = encoder.explain("red mug", None, RELATIONS[relation].relation_id).text
    assert found is not None
    assert words(found) == ["red", "mug"]
    for word, tokens in zip(found.words, layout.words, strict=True):
        expected = sum(weights[places.index(token)] for token in tokens)
        assert word.weight == pytest.approx(expected, abs=1e-5)
    assert sum(word.weight for word in found.words) + found.summary == pytest.approx(1.0, abs=1e-6)
    assert weights.max() > 1.5 / len(weights)  # otherwise, uniform weights would also pass
    own = encoder.encode_texts(["red mug"])[0, relation]
    np.testing.assert_allclose(vector(encoder, states, weights), own, rtol=0, atol=1e-5)


@pytest.mark.parametrize("relation", [0, 1])
@pytest.mark.parametrize("size", [(40, 40), (64, 24), (20, 90)])
def test_patch_weights_match_pooling_of_network(
    size: tuple[int, int], relation: int, kind: str, encoder: Encoder
) -> None:
    picture, leading = noise(*size), LAYOUTS[kind].leading
    states = picture_states(encoder, picture)
    weights = attention(encoder, states, relation, summary=0)
    found = encoder.explain(None, picture, RELATIONS[relation].relation_id).image
    assert found is not None
    np.testing.assert_allclose(found.grid.ravel(), weights[leading:], rtol=0, atol=1e-5)
    assert found.summary == pytest.approx(weights[:leading].sum(), abs=1e-5)
    assert found.grid.sum() + found.summary == pytest.approx(1.0, abs=1e-6)
    own = encoder.encode_items([""], [picture]).image[0, relation]
    np.testing.assert_allclose(vector(encoder, states, weights), own, rtol=0, atol=1e-5)


def test_grid_has_shape_of_patches(kind: str, encoder: Encoder) -> None:
    shapes = []
    for size in ((40, 40), (64, 24), (20, 90)):
        image = encoder.explain(None, noise(*size), "colour").image
        assert image is not None
        shapes.append(image.grid.shape)
    # SigLIP 2 divides a picture of any shape into at most 12 patches. The others resize it to 32x32 pixels and divide
    # it into patches of 16x16 pixels, or for the convolutional tower, of 8x8 pixels.
    other = [(4, 4) if kind == CONVOLUTIONAL else (2, 2)] * 3
    assert shapes == ([(3, 3), (2, 6), (6, 2)] if kind == "siglip2" else other)


def test_patches_are_ordered_row_by_row(encoder: Encoder) -> None:
    picture = noise(48, 48)
    layout = encoder.network.backbone.patch_layout(decoded(encoder, picture), 9)
    changed = picture.copy()
    changed.paste("white", (0, 48 - 48 // layout.rows, 48 // layout.columns, 48))  # bottom left
    moved = np.linalg.norm(picture_states(encoder, changed) - picture_states(encoder, picture), axis=1)
    assert moved[-layout.rows * layout.columns :].argmax() == (layout.rows - 1) * layout.columns


def test_free_text_relation_attends_like_trained_relation_of_same_description(encoder: Encoder) -> None:
    worded = encoder.read_relation(RELATIONS[1].description)
    one, other = (encoder.explain("a red mug", noise(40, 40), relation) for relation in ("colour", worded))
    assert one.text is not None
    assert other.text is not None
    assert words(one.text) == words(other.text)
    for known, asked in zip(one.text.words, other.text.words, strict=True):
        assert asked.weight == pytest.approx(known.weight, abs=1e-5)
    assert one.image is not None
    assert other.image is not None
    np.testing.assert_allclose(other.image.grid, one.image.grid, rtol=0, atol=1e-5)


def test_summary_bonus_of_intra_sample_relation_goes_to_summary(encoder: Encoder) -> None:
    image = encoder.explain(None, noise(40, 40), "same-item").image
    worded = encoder.explain(None, noise(40, 40), encoder.read_relation(INTRA_RELATION.description)).image
    assert image is not None
    assert worded is not None
    lost = image.grid / worded.grid
    # The bonus reduces the weights of all patches by the same factor.
    np.testing.assert_allclose(lost, lost.flat[0], rtol=1e-3)
    assert lost.flat[0] < 0.99


def test_missing_text_or_picture_has_no_attention(clip: Encoder) -> None:
    assert clip.explain(None, noise(9, 9), "colour").text is None
    assert clip.explain("red mug", None, "colour").image is None


def test_relative_entropy_is_that_of_the_weights_of_each_item(kind: str, encoder: Encoder) -> None:
    texts, picture = ["red mug", "a red mug"], noise(40, 40)
    room = encoder.preprocessor.blank(2)
    for row in range(2):
        encoder.preprocessor.decode(picture, room, row)
    found = encoder.attention_entropy(encoder.preprocessor.tokenize(texts), room)
    expected = []
    for text in texts:
        states, positions = text_states(encoder, text)
        own = attention(encoder, states, 1, positions.index(LAYOUTS[kind].summary) if text == texts[0] else 0)
        expected.append(-(own * np.log(own)).sum() / np.log(len(own)))
    assert found.text == pytest.approx(np.mean(expected), abs=1e-4)
    own = attention(encoder, picture_states(encoder, picture), 1, 0)
    assert found.image == pytest.approx(-(own * np.log(own)).sum() / np.log(len(own)), abs=1e-4)


def test_relative_entropy_of_uniform_attention_is_one(tmp_path: Path) -> None:
    write_family("clip", tmp_path)
    backbone, preprocessor = load_backbone(tmp_path)
    network = Network(
        NetworkConfig(objective="rcml", beta=BETA, summary_scale=SUMMARY_SCALE, backbone=backbone.config),
        backbone,
    )
    network.attention.scale(0.0)
    uniform = Encoder(network.eval(), preprocessor, RELATIONS, torch.device("cpu"))
    found = uniform.attention_entropy(preprocessor.tokenize(["red mug", "mug"]), preprocessor.blank(2))
    assert found.text == pytest.approx(1.0, abs=1e-6)
    assert found.image == pytest.approx(1.0, abs=1e-6)


def test_items_with_a_single_token_have_no_entropy(clip: Encoder) -> None:
    states = torch.zeros(3, 1, clip.network.backbone.text_projection().shape[0])
    single = Tokens(states, torch.ones(3, 1, dtype=torch.bool), torch.zeros(3, dtype=torch.long))
    assert relative_entropy(clip.network, single, clip.context().text) is None


def test_rejects_unknown_relation_and_reports_its_id(clip: Encoder) -> None:
    with pytest.raises(UnknownRelationError, match=r"'sailors'.*same-item, colour"):
        clip.explain("red mug", None, "sailors")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Red  MUG, 2024 don't", ["Red", "MUG", ",", "2024", "don", "'", "t"]),
        ("tasse\u0301 Weiße İstanbul", ["tasse\u0301", "Weiße", "İstanbul"]),
        ("mug 👩\u200d👩\u200d👧 ok🙂!", ["mug", "👩\u200d👩\u200d👧", "ok", "🙂!"]),
        ("漢字 kite", ["漢", "字", "kite"]),
        ("हिन्दी", ["हिन्दी"]),
        ("  \n", []),
        ("", []),
    ],
)
def test_merges_tokens_of_split_words(text: str, expected: list[str], clip: Encoder) -> None:
    found = explained(clip, text)
    assert words(found) == expected
    assert [text[word.start : word.end] for word in found.words] == expected
    assert sum(word.weight for word in found.words) + found.summary == pytest.approx(1.0, abs=1e-6)


def test_truncated_text_has_only_words_before_the_cut(kind: str, encoder: Encoder) -> None:
    found = explained(encoder, "red mug " * 100)
    read = {"clip": 75, "siglip": 15, "siglip2": 4}.get(kind, 14)  # BERT: 16 tokens with CLS and SEP
    assert words(found) == (["red", "mug"] * 100)[:read]
    assert found.words[-1].start == (read - 1) * 4


def test_truncated_word_ends_at_the_cut(clip: Encoder) -> None:
    assert words(explained(clip, "xyzzy" * 40)) == [("xyzzy" * 40)[:75]]


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_words_are_ordered_slices_of_text_and_weights_sum_to_one(clip: Encoder, text: str) -> None:
    found = explained(clip, text)
    end = 0
    for word in found.words:
        assert end <= word.start < word.end
        assert text[word.start : word.end] == word.text == word.text.strip()
        end = word.end
    assert sum(word.weight for word in found.words) + found.summary == pytest.approx(1.0, abs=1e-5)


def test_sums_token_weights_of_each_word_and_adds_empty_tokens_to_summary_weight() -> None:
    weights = weigh_words("ab, c", [(0, 0), (0, 1), (1, 2), (2, 4), (4, 5)], [0.1, 0.2, 0.3, 0.15, 0.25])
    assert [(word.text, word.start, word.end) for word in weights.words] == [
        ("ab", 0, 2),
        (",", 2, 3),
        ("c", 4, 5),
    ]
    assert [word.weight for word in weights.words] == pytest.approx([0.5, 0.15, 0.25])
    assert weights.summary == 0.1


class SlowTokenizer:
    """Tokenizer that does not report the character offsets of its tokens, like the sentencepiece tokenizers."""

    is_fast = False

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self._own = word_tokenizer()
        self._pairs = pairs
        self.pad_token_id = self._own.pad_token_id

    def __call__(self, texts: Any, **options: Any) -> Any:
        assert "return_offsets_mapping" not in options
        for pair, word in self._pairs.items():
            texts = texts.replace(pair, word)
        return self._own(texts, **options)


def slow(pairs: Mapping[str, str]) -> Preprocessor:
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return Preprocessor(SlowTokenizer(pairs), processor, TextFormat(max_tokens=5, fixed_length=True))


def test_tokenizer_without_offsets_is_called_word_by_word() -> None:
    assert slow({}).spans(" red mug") == [(1, 4), (5, 8), (0, 0), (0, 0), (0, 0)]
    assert slow({}).spans("red mug hat kite drum vase") == [(0, 3), (4, 7), (8, 11), (12, 16), (0, 0)]


def test_text_is_one_word_if_separate_words_give_different_tokens() -> None:
    spans = slow({"red mug": "hat"}).spans("red mug kite")
    assert spans == [(0, 12), (0, 12), (0, 0), (0, 0), (0, 0)]
    assert words(weigh_words("red mug kite", spans, [0.2] * 5)) == ["red mug kite"]


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((64, 32), Box(0.25, 0.0, 0.75, 1.0)),
        ((20, 90), Box(0.0, 56 / 144, 1.0, 88 / 144)),
        ((375, 225), Box(10 / 53, 0.0, 42 / 53, 1.0)),
        ((3000, 2000), Box(1 / 6, 0.0, 5 / 6, 1.0)),
        ((7, 7), WHOLE),
    ],
)
def test_clip_receives_only_middle_of_wide_or_tall_picture(
    size: tuple[int, int], box: Box, clip: Encoder
) -> None:
    assert sides(clip.preprocessor.shown(*size)) == pytest.approx(sides(box), abs=2e-3)


def sides(box: Box) -> tuple[float, ...]:
    return box.left, box.top, box.right, box.bottom


@pytest.mark.parametrize("kind", ["siglip", "siglip2", "vision-text-dual-encoder"], indirect=True)
def test_other_families_receive_whole_picture(kind: str, encoder: Encoder) -> None:
    for size in ((64, 24), (20, 90)):
        image = encoder.explain(None, noise(*size), "colour").image
        assert image is not None
        assert sides(image.box) == pytest.approx(sides(WHOLE), abs=2e-3)


def test_crop_larger_than_picture_extends_beyond_it() -> None:
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 64, "width": 64})
    preprocessor = Preprocessor(word_tokenizer(), processor, TextFormat(max_tokens=9, fixed_length=False))
    assert sides(preprocessor.shown(200, 200)) == pytest.approx((-0.5, -0.5, 1.5, 1.5), abs=2e-3)


def test_box_excludes_pixels_outside_whole_patches() -> None:
    shape = TINY.model_copy(update={"image_size": 40})
    preprocessor = Preprocessor.train(["red mug"], shape)
    encoder = sharpened(small_backbone(shape, preprocessor), preprocessor)
    image = encoder.explain(None, noise(80, 40), "colour").image
    assert image is not None
    assert image.grid.shape == (2, 2)
    # The patches cover 32x32 of the middle 40x40 pixels.
    assert sides(image.box) == pytest.approx((20 / 80, 0, 52 / 80, 32 / 40), abs=2e-3)


def test_tower_that_merges_patches_has_grid_of_its_last_stage(tmp_path: Path) -> None:
    text = BertConfig(vocab_size=len(WORDS) + 5, max_position_embeddings=TEXT_LENGTH, **LAYERS)
    stages: dict[str, Any] = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
    dual_encoder(text, SwinConfig(image_size=SIDE, patch_size=4, **stages)).save_pretrained(tmp_path)
    write_dual_encoder_processors(tmp_path)
    backbone, preprocessor = load_backbone(tmp_path)
    image = sharpened(backbone.eval(), preprocessor).explain(None, noise(40, 40), "colour").image
    assert image is not None
    assert image.grid.shape == (4, 4)


def test_rejects_tower_without_single_patch_size(clip: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip.network.backbone.model.config.vision_config, "patch_size", [8, 16])
    with pytest.raises(InputError, match=r"\(clip_vision_model\) has patch size \[8, 16\]"):
        clip.explain(None, noise(9, 9), "colour")


def drawn(picture: Image.Image, grid: Sequence[Sequence[float]], box: Box = WHOLE, **options: Any) -> ndarray:
    weights = PatchWeights(np.array(grid, np.float32), 0.0, box)
    with Image.open(BytesIO(heat_map(picture, weights, **options))) as image:
        assert image.format == "PNG"
        return np.asarray(image).astype(float)


def test_heat_map_is_brightest_at_largest_weight() -> None:
    pixels = drawn(Image.new("RGB", (64, 64)), [[0.1, 0.1, 0.1], [0.1, 0.1, 0.4]], side=60)
    brightness = pixels.sum(axis=2)
    patches = brightness.reshape(2, 30, 3, 20).mean(axis=(1, 3))
    assert patches.argmax() == 5
    assert patches[1, 2] > 2 * patches[0, 0]
    assert np.unravel_index(brightness.argmax(), brightness.shape) > (30, 40)


def test_uniform_attention_has_same_colour_at_any_magnitude() -> None:
    opacity = 0.5 + 0.5 / 3
    expected = np.array(HEAT_COLOURS(1 / 3)[:3]) * 0.45 * opacity * 255
    for weight in (0.25, 1e-30):
        pixels = drawn(Image.new("RGB", (30, 20)), [[weight] * 2] * 2)
        np.testing.assert_allclose(pixels, np.broadcast_to(expected, pixels.shape), atol=0.51)


def test_zero_attention_renders_picture_in_grey_at_half_brightness() -> None:
    pixels = drawn(Image.new("RGB", (30, 20), "white"), [[0.0, 0.0]])
    np.testing.assert_allclose(pixels, 127.5, atol=2.0)


def test_given_mean_shows_how_much_of_the_attention_is_on_patches() -> None:
    white = Image.new("RGB", (32, 32), "white")
    even = drawn(white, [[0.25, 0.25], [0.25, 0.25]])
    np.testing.assert_array_equal(drawn(white, [[0.1, 0.1], [0.1, 0.1]]), even)
    np.testing.assert_array_equal(drawn(white, [[0.25, 0.25], [0.25, 0.25]], mean=0.25), even)
    less = drawn(white, [[0.1, 0.1], [0.1, 0.1]], mean=0.25)
    np.testing.assert_array_equal(less, drawn(white, [[0.4, 0.4], [0.4, 0.4]], mean=1.0))
    assert less[..., 0].mean() < even[..., 0].mean() - 10


def test_area_outside_crop_is_dark_and_crop_is_rendered_like_whole_picture() -> None:
    grid = [[0.4, 0.1], [0.3, 0.2]]
    pixels = drawn(Image.new("RGB", (400, 200), "white"), grid, Box(0.25, 0.0, 0.75, 1.0), side=100)
    assert pixels.shape == (50, 100, 3)
    outside = np.concatenate([pixels[:, :25], pixels[:, 75:]], axis=1)
    np.testing.assert_allclose(outside, round(255 * CROPPED_BRIGHTNESS), atol=1.0)
    np.testing.assert_array_equal(
        pixels[:, 25:75], drawn(Image.new("RGB", (200, 200), "white"), grid, side=50)
    )


def test_patches_of_padded_picture_are_rendered_in_place() -> None:
    pixels = drawn(Image.new("RGB", (64, 64)), [[1.0, 0.1], [0.1, 0.1]], Box(0.0, 0.0, 2.0, 2.0), side=64)
    even = drawn(Image.new("RGB", (64, 64)), [[1.0]], side=64)
    # The first of the four patches covers the whole picture.
    assert pixels.sum(axis=2).mean() > even.sum(axis=2).mean()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
@pytest.mark.parametrize("size", [(1, 300), (300, 1), (9, 7)])
def test_renders_picture_of_any_mode_and_shape(size: tuple[int, int], mode: str) -> None:
    pixels = drawn(Image.new("RGB", size).convert(mode), [[0.2, 0.3], [0.4, 0.1]])
    assert max(pixels.shape) == 512


@given(
    grid=arrays(np.float64, (3, 4), elements=st.floats(0, 100, width=32)),
    size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
)
def test_interpolation_is_nonnegative_and_preserves_patch_means(grid: ndarray, size: tuple[int, int]) -> None:
    height, width = size
    pixels = interpolate_patches(grid, np.arange(3 * height + 1) / height, np.arange(4 * width + 1) / width)
    assert pixels.min() >= 0
    means = pixels.reshape(3, height, 4, width).mean(axis=(1, 3))
    np.testing.assert_allclose(means, grid, rtol=0, atol=1e-9)


def test_interpolation_is_smooth() -> None:
    pixels = interpolate_patches(np.array([[0.0, 1.0, 0.0]]), np.array([0.0, 1.0]), np.arange(61) / 20)
    assert abs(np.diff(pixels[0])).max() < 0.3  # without interpolation, the step would be 1
