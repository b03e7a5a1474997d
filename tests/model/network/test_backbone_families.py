"""Tests of every supported architecture and its processors, with tiny random models loaded from disk."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from model.encoder.encoder import Encoder
from model.errors import InputError
from model.network.backbones import BACKBONES, Backbone
from model.network.inputs import PictureInput, TextInput
from model.network.load_backbone import build_backbone, load_backbone
from model.network.network import Network, NetworkConfig
from model.network.processor import Preprocessor, TextFormat
from model.network.relation_attention import ONE_HOT_SCALE
from model.records import INTRA_RELATION, Relation
from model.training.train import train
from tests.model.planted import tiny_training

from .families import (
    CONVOLUTIONAL,
    FAMILIES,
    SIDE,
    TEXT_LENGTH,
    clip_vision,
    distilbert,
    dual_encoder,
    picture_shape,
    roberta,
    text_shape,
    word_tokenizer,
    write_dual_encoder_processors,
    write_family,
)

TEXTS = ["red mug", "these two items have the same colour", "hat", "a green kite of the same kind"]
RELATIONS = (INTRA_RELATION, Relation("colour", "these two items have the same colour"))


@dataclass(frozen=True)
class Family:
    """Backbone and preprocessor loaded from disk; `model` is the model that was saved there."""

    kind: str
    folder: Path
    model: Any
    backbone: Backbone
    preprocessor: Preprocessor

    def text_features(self, text: TextInput) -> Tensor:
        """Return the text features as the original model computes them: SigLIP uses no attention mask."""
        mask = None if self.kind.startswith("siglip") else text.mask
        features: Tensor = self.model.get_text_features(text.ids, attention_mask=mask).pooler_output
        return features

    def image_features(self, pictures: list[Image.Image]) -> Tensor:
        """Return the features from the saved model, of the pixels that rcml decodes.

        Those of the saved image processor may differ from them by 1 of 255
        (`test_normalised_uint8_pictures_match_image_processor`).
        """
        processed = self.preprocessor.image_processor(pictures, return_tensors="pt")
        if processed["pixel_values"].ndim == 4:
            processed["pixel_values"] = normalised(self.preprocessor, pictures).pixels
        features: Tensor = self.model.get_image_features(**processed).pooler_output
        return features

    def network(self, beta: float = 0.6, summary_scale: float = 1.0) -> Network:
        config = NetworkConfig(
            objective="rcml", beta=beta, summary_scale=summary_scale, backbone=self.backbone.config
        )
        return Network(config, self.backbone).eval()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    folder = tmp_path_factory.mktemp(request.param)
    model = write_family(request.param, folder)
    backbone, preprocessor = load_backbone(str(folder))
    return Family(request.param, folder, model, backbone.eval(), preprocessor)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def pictures_of_all_shapes() -> list[Image.Image]:
    return [noise(40, 40, 1), noise(64, 24, 2), noise(20, 90, 3)]


def normalised(preprocessor: Preprocessor, pictures: list[Image.Image]) -> PictureInput:
    room = preprocessor.blank(len(pictures))
    for row, picture in enumerate(pictures):
        preprocessor.decode(picture, room, row)
    return preprocessor.normalise(room)


def test_every_supported_type_is_tested() -> None:
    assert set(FAMILIES) - {CONVOLUTIONAL} == set(BACKBONES)


@torch.inference_mode()
def test_projected_summary_token_equals_features_of_model(family: Family) -> None:
    text = family.preprocessor.tokenize(TEXTS)
    summary = family.backbone.text_tokens(text).summary_states() @ family.backbone.text_projection()
    torch.testing.assert_close(summary, family.text_features(text), rtol=0, atol=1e-5)
    pictures = pictures_of_all_shapes()
    tokens = family.backbone.image_tokens(normalised(family.preprocessor, pictures))
    summary = tokens.summary_states() @ family.backbone.image_projection()
    torch.testing.assert_close(summary, family.image_features(pictures), rtol=0, atol=1e-5)
    assert (summary[0] - summary[1]).norm() > 1e-2  # otherwise constant features would pass too


@torch.inference_mode()
def test_beta_one_with_one_hot_bonus_equals_original_model(family: Family) -> None:
    network = family.network(beta=1.0, summary_scale=ONE_HOT_SCALE)
    text, pictures = family.preprocessor.tokenize(TEXTS), pictures_of_all_shapes()
    context = network.context(family.preprocessor.tokenize([INTRA_RELATION.description]), [INTRA_RELATION])
    for ours, theirs in (
        (network.text_vectors(text, context), family.text_features(text)),
        (
            network.image_vectors(normalised(family.preprocessor, pictures), context),
            family.image_features(pictures),
        ),
    ):
        torch.testing.assert_close(ours[:, 0], F.normalize(theirs, dim=-1), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_tokens_are_finite_and_differ_from_summary(family: Family) -> None:
    backbone = family.backbone
    for tokens, projection in (
        (backbone.text_tokens(family.preprocessor.tokenize(TEXTS)), backbone.text_projection()),
        (
            backbone.image_tokens(normalised(family.preprocessor, pictures_of_all_shapes())),
            backbone.image_projection(),
        ),
    ):
        assert projection.shape == (tokens.states.shape[2], backbone.dim)
        assert tokens.mask.shape == tokens.states.shape[:2]
        assert tokens.states.isfinite().all()
        assert tokens.mask.gather(1, tokens.summary[:, None]).all()
        for states, mask, summary in zip(tokens.states, tokens.mask, tokens.summary, strict=True):
            joint = states @ projection
            assert (joint[mask] - joint[summary]).norm(dim=1).max() > 1e-2


def test_vectors_do_not_depend_on_padding_or_batch(family: Family) -> None:
    encoder = Encoder(family.network(), family.preprocessor, RELATIONS, torch.device("cpu"))
    pictures = [*pictures_of_all_shapes(), noise(33, 47, 4)]
    together = encoder.encode_items(TEXTS, pictures)
    for row in range(len(TEXTS)):
        alone = encoder.encode_items([TEXTS[row]], [pictures[row]])
        np.testing.assert_allclose(alone.text[0], together.text[row], rtol=0, atol=1e-5)
        np.testing.assert_allclose(alone.image[0], together.image[row], rtol=0, atol=1e-5)


def test_relation_changes_vectors_of_both_modalities(family: Family) -> None:
    encoder = Encoder(family.network(), family.preprocessor, RELATIONS, torch.device("cpu"))
    vectors = encoder.encode_items(["a red mug"], [noise(40, 40)])
    for view in (vectors.text, vectors.image):
        assert np.linalg.norm(view[0, 0] - view[0, 1]) > 1e-4


def test_normalised_uint8_pictures_match_image_processor(family: Family) -> None:
    pictures = pictures_of_all_shapes()
    expected = family.preprocessor.image_processor(pictures, return_tensors="pt")
    ours = normalised(family.preprocessor, pictures)
    wanted = expected["pixel_values"]
    # Exclude the padding of NaFlex patches from the comparison.
    kept = expected.get("pixel_attention_mask", torch.ones(wanted.shape[:2])).bool()
    # If torch resizes, a pixel may differ by 1 of 255 (`test_antialiased_resize.py`).
    step = 0.0
    if family.preprocessor.decoder.settings["resize"] is not None:
        levels = family.preprocessor.blank(2)
        levels.pixels[1] = 1
        black, darkest = family.preprocessor.normalise(levels).pixels
        step = (darkest - black).max().item()
        unscaled = [noise(SIDE, SIDE)]
        torch.testing.assert_close(
            normalised(family.preprocessor, unscaled).pixels,
            family.preprocessor.image_processor(unscaled, return_tensors="pt")["pixel_values"],
            rtol=0,
            atol=1e-5,
        )
    torch.testing.assert_close(ours.pixels[kept], wanted[kept], rtol=0, atol=step + 1e-5)
    shapes = expected.get("spatial_shapes", torch.zeros(3, 2))
    assert ours.grid.tolist() == shapes.tolist()
    assert family.preprocessor.blank(1).pixels.dtype == torch.uint8


def test_token_ids_match_tokenizer_of_model(family: Family) -> None:
    own = AutoTokenizer.from_pretrained(family.folder)
    text = family.preprocessor.tokenize(["Red MUG", "these two"])
    for row, words in enumerate(["Red MUG", "these two"]):
        expected = own(words)["input_ids"]
        assert text.ids[row, : len(expected)].tolist() == expected
        assert set(text.ids[row, len(expected) :].tolist()) <= {own.pad_token_id}


def test_texts_are_right_padded_and_truncated_to_tower_limit(family: Family) -> None:
    text = family.preprocessor.tokenize(["red mug " * 100, "hat"])
    most = 77 if family.kind == "clip" else TEXT_LENGTH
    assert text.ids.shape == (2, most)
    assert text.mask[0].all()
    assert (text.mask[1, 0].item(), text.mask[1, most // 2].item()) == (True, False)
    assert text.mask[1, -1].item() == family.kind.startswith("siglip")


def test_pads_to_full_length_only_if_summary_is_last_position(family: Family) -> None:
    text = family.preprocessor.tokenize(["hat", "red mug"])
    part = text.take(torch.tensor([0]))
    full = family.kind.startswith("siglip")
    assert (text.ids.shape[1] == TEXT_LENGTH) == full
    assert (part.ids.shape[1] == TEXT_LENGTH) == full


def test_loads_processors_from_folder_without_model_config(family: Family, tmp_path: Path) -> None:
    folder = tmp_path / "gpt2-bert-clip"  # transformers would guess a model from this name
    folder.mkdir()
    family.preprocessor.save(folder)
    (folder / "config.json").write_text(json.dumps({"out": "checkpoint", "steps": 3}))
    again = Preprocessor.load(folder)
    expected, text = family.preprocessor.tokenize(TEXTS), again.tokenize(TEXTS)
    assert torch.equal(text.ids, expected.ids)
    assert torch.equal(text.mask, expected.mask)
    pictures = pictures_of_all_shapes()
    ours, theirs = (normalised(each, pictures) for each in (again, family.preprocessor))
    assert torch.equal(ours.pixels, theirs.pixels)
    assert torch.equal(ours.grid, theirs.grid)


def test_rebuilds_backbone_from_its_json_config(family: Family) -> None:
    again = build_backbone(json.loads(json.dumps(family.backbone.config)))
    again.load_state_dict(family.backbone.state_dict())
    text = family.preprocessor.tokenize(TEXTS)
    with torch.inference_mode():
        ours, theirs = (each.eval().text_tokens(text).states for each in (again, family.backbone))
    assert (type(again), again.dim) == (type(family.backbone), family.backbone.dim)
    assert torch.equal(ours, theirs)


def test_opens_trained_checkpoint_without_naming_architecture(
    family: Family, prepared: Path, tmp_path: Path
) -> None:
    config = tiny_training(
        prepared,
        tmp_path / "out",
        backbone=str(family.folder),
        steps=1,
        learning_rate=1e-9,
        conditioning="paper",
        normalise_tokens=False,
    )
    train(config)
    opened = Encoder.from_pretrained(config.out, "cpu")
    expected = Encoder(family.network(), family.preprocessor, opened.relations, torch.device("cpu"))
    first, second = (each.encode_items(["red mug"], [noise(30, 40)]) for each in (opened, expected))
    np.testing.assert_allclose(first.text, second.text, rtol=0, atol=1e-5)
    np.testing.assert_allclose(first.image, second.image, rtol=0, atol=1e-5)


def test_trains_with_relation_bias_and_normalised_tokens(
    family: Family, prepared: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"conditioning": "centred+bias", "normalise_tokens": True}
    config = tiny_training(
        prepared, tmp_path / "out", backbone=str(family.folder), steps=2, micro_batch=7, **options
    )
    train(config)
    opened = Encoder.from_pretrained(config.out, "cpu")
    found = opened.encode_items(["red mug", "hat"], [noise(30, 40), noise(20, 20)])
    for vectors in (found.text, found.image):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-5)
    bias = opened.network.attention.bias
    assert bias is not None
    assert bias.matrix.any()


def test_loads_all_weights_and_freezes_only_those_used_by_original_loss(family: Family) -> None:
    loaded, saved = family.backbone.model.state_dict(), family.model.state_dict()
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in loaded.items())
    frozen = {name for name, p in family.backbone.model.named_parameters() if not p.requires_grad}
    expected = {"logit_scale", "logit_bias"} if family.kind.startswith("siglip") else {"logit_scale"}
    assert frozen == expected


def test_loads_half_precision_weights_as_float32(family: Family, tmp_path: Path) -> None:
    write_family(family.kind, tmp_path).bfloat16().save_pretrained(tmp_path)
    backbone, _ = load_backbone(tmp_path)
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in build_backbone(backbone.config).parameters()} == {torch.float32}


@torch.inference_mode()
def test_bfloat16_network_gives_similar_vectors(family: Family) -> None:
    text = family.preprocessor.tokenize(TEXTS)
    pictures = normalised(family.preprocessor, pictures_of_all_shapes())
    half = Network(family.network().config, build_backbone(family.backbone.config))
    half.load_state_dict(family.network().state_dict())
    relations = family.preprocessor.tokenize([relation.description for relation in RELATIONS])
    vectors = []
    for network in (family.network(), half.to(torch.bfloat16).eval()):
        context = network.context(relations, RELATIONS)
        vectors.append((network.text_vectors(text, context), network.image_vectors(pictures, context)))
    for exact, rough in zip(*vectors, strict=True):
        assert float((exact * rough).sum(dim=-1).min()) > 0.99


@torch.inference_mode()
def test_each_modality_compiles_into_one_graph(family: Family) -> None:
    network = family.network()
    text = family.preprocessor.tokenize(TEXTS)
    context = network.context(text, [RELATIONS[1]] * len(TEXTS))
    pictures = normalised(family.preprocessor, pictures_of_all_shapes())
    compiled: list[tuple[Callable[..., Tensor], TextInput | PictureInput]] = [(network.text_vectors, text)]
    if family.kind != "siglip2":  # its image tower reads the size of each picture from a tensor
        compiled.append((network.image_vectors, pictures))
    for encode, inputs in compiled:
        graph = torch.compile(encode, fullgraph=True, backend="eager")
        torch.testing.assert_close(graph(inputs, context), encode(inputs, context))


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["siglip", "siglip2"])
def test_siglip_patch_token_equals_head_output_for_single_patch(kind: str, tmp_path: Path) -> None:
    model = write_family(kind, tmp_path)
    backbone, preprocessor = load_backbone(tmp_path)
    pictures = normalised(preprocessor, [noise(40, 40)])
    tokens = backbone.eval().image_tokens(pictures)
    sizes = {"pixel_attention_mask": tokens.mask[:, 1:], "spatial_shapes": pictures.grid}
    vision, head = model.get_submodule("vision_model"), model.get_submodule("vision_model.head")
    out = vision(pixel_values=pictures.pixels, **(sizes if kind == "siglip2" else {}))
    for patch in range(4):
        alone = head(out.last_hidden_state[:, patch : patch + 1])
        torch.testing.assert_close(tokens.states[:, 1 + patch], alone, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_first_token_is_summary_of_tower_without_pooled_output(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = dual_encoder(distilbert(), clip_vision())
    model.save_pretrained(tmp_path)
    write_dual_encoder_processors(tmp_path)
    backbone, preprocessor = load_backbone(tmp_path)
    text = preprocessor.tokenize(TEXTS)
    tower, projection = model.get_submodule("text_model"), model.get_submodule("text_projection")
    states = tower(input_ids=text.ids, attention_mask=text.mask).last_hidden_state
    summary = backbone.eval().text_tokens(text).summary_states() @ backbone.text_projection()
    torch.testing.assert_close(summary, projection(states[:, 0]), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_applies_last_layer_norm_to_clip_image_tokens() -> None:
    torch.manual_seed(0)
    backbone = build_backbone(dual_encoder(distilbert(), clip_vision()).config.to_diff_dict()).eval()
    tokens = backbone.image_tokens(PictureInput(torch.randn(2, 3, SIDE, SIDE), torch.zeros(2, 2)))
    # Token 0 is the pooled output, which is CLS after the norm. Token 1 is CLS itself.
    torch.testing.assert_close(tokens.states[:, 1], tokens.states[:, 0], rtol=0, atol=1e-5)


def test_tower_that_numbers_positions_from_2_gets_two_fewer_tokens(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dual_encoder(roberta(), clip_vision()).save_pretrained(tmp_path)
    write_dual_encoder_processors(tmp_path)
    backbone, preprocessor = load_backbone(tmp_path)
    text = preprocessor.tokenize(["red mug " * 100])
    assert text.ids.shape[1] == TEXT_LENGTH == roberta().max_position_embeddings - 2
    assert backbone.eval().text_tokens(text).states.isfinite().all()


def test_truncates_texts_to_tokenizer_limit_if_lower(tmp_path: Path) -> None:
    write_family("vision-text-dual-encoder", tmp_path)
    write_dual_encoder_processors(tmp_path, model_max_length=7)
    assert Preprocessor.load(tmp_path).tokenize(["red mug " * 100]).ids.shape == (1, 7)


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_rejects_unknown_architecture_and_lists_supported_types(tmp_path: Path) -> None:
    write_family("siglip", tmp_path)
    change_config(tmp_path, model_type="flava")
    with pytest.raises(
        InputError, match=r"'flava' in .* is not supported.*clip, siglip, siglip2, vision-text-dual-encoder"
    ):
        load_backbone(tmp_path)
    with pytest.raises(InputError, match=r"The model type 'bert' in network\.json is not supported"):
        build_backbone({"model_type": "bert"})


def test_rejects_and_names_missing_and_misshapen_weights(family: Family, tmp_path: Path) -> None:
    write_family(family.kind, tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    name, other = [key for key in sorted(weights) if key.endswith("weight") and weights[key].ndim == 2][:2]
    gone = {key: tensor for key, tensor in weights.items() if key != name}
    save_file(gone, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"do not match its config.json: {name} is missing"):
        load_backbone(tmp_path)
    save_file(weights | {other: torch.zeros(3, 5)}, path, metadata={"format": "pt"})
    wanted = list(weights[other].shape)
    with pytest.raises(InputError, match=rf"{other} is \[3, 5\] instead of \[{wanted[0]}, {wanted[1]}\]"):
        load_backbone(tmp_path)


def test_rejects_damaged_weights_and_invalid_config(tmp_path: Path) -> None:
    write_family("siglip", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match=f"No backbone could be loaded from '{tmp_path}'"):
        load_backbone(tmp_path)
    change_config(tmp_path, text_config={"hidden_size": "wide"})
    with pytest.raises(InputError, match=r"The config in .* is invalid.*hidden_size"):
        load_backbone(tmp_path)
    towers = {"text_config": {"model_type": "bert"}, "vision_config": {"model_type": "eye"}}
    with pytest.raises(InputError, match=r"The config in network.json is invalid.*: .*eye"):
        build_backbone({"model_type": "vision-text-dual-encoder", **towers})


def test_rejects_siglip_without_pooling_head() -> None:
    vision = {**picture_shape(), "vision_use_head": False}
    config = {"model_type": "siglip", "text_config": text_shape(), "vision_config": vision}
    with pytest.raises(InputError, match="no pooling head"):
        build_backbone(config)


def test_rejects_tower_without_width() -> None:
    towers = {"text_config": {"model_type": "bert"}, "vision_config": {"model_type": "resnet"}}
    config = {"model_type": "vision-text-dual-encoder", **towers}
    with pytest.raises(
        InputError, match=r"The tower 'resnet' in network\.json .* width .* unknown.*`rcml backbone make`"
    ):
        build_backbone(config)


def test_rejects_unknown_pooling() -> None:
    towers = {
        "text_config": {"model_type": "bert", "rcml_pooling": "max"},
        "vision_config": {"model_type": "vit"},
    }
    with pytest.raises(InputError, match=r"'bert' in .* rcml_pooling 'max'\. Use one of pooled, first, mean"):
        build_backbone({"model_type": "vision-text-dual-encoder", **towers})


def test_rejects_image_processor_with_varying_output_shapes(tmp_path: Path) -> None:
    write_family("clip", tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_center_crop": False}))
    with pytest.raises(InputError, match=r"CLIPImageProcessorPil.*outputs pictures of different shapes"):
        load_backbone(tmp_path)


def test_rejects_tokenizer_without_padding_token(tmp_path: Path) -> None:
    write_family("vision-text-dual-encoder", tmp_path)
    preprocessor = Preprocessor.load(tmp_path)
    preprocessor.tokenizer.pad_token = None
    with pytest.raises(InputError, match=r"BertTokenizer.*has no padding token"):
        Preprocessor(
            preprocessor.tokenizer,
            preprocessor.image_processor,
            TextFormat(max_tokens=9, fixed_length=False),
        )


def test_rejects_processors_of_another_model(tmp_path: Path) -> None:
    write_family("siglip", tmp_path)
    processor = SiglipImageProcessorPil(size={"height": 2 * SIDE, "width": 2 * SIDE})
    processor.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"cannot process the output of its image processor: .*16"):
        load_backbone(tmp_path)
    tokenizer = word_tokenizer()
    tokenizer.add_tokens([f"word{n}" for n in range(99)])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=rf"has {len(tokenizer)} tokens, but the text tower supports only 64"
    ):
        load_backbone(tmp_path)


@pytest.mark.skipif(find_spec("sentencepiece") is not None, reason="sentencepiece is installed")
def test_missing_sentencepiece_error_shows_install_command(tmp_path: Path) -> None:
    write_family("siglip", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "SiglipTokenizer"}')
    with pytest.raises(InputError, match=r"Run `pip install 'rcml\[siglip\]'`"):
        load_backbone(tmp_path)
