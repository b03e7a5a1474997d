"""Tests of CLIP, SigLIP and SigLIP 2 against the features of `transformers`."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.data.pictures.images import load_picture
from model.errors import InputError, PictureError
from model.network.load_backbone import load_backbone
from model.records import Relation
from model.systems.families import open_system
from model.systems.system import Passes
from tests.model.network.families import SIDE, write_clip, write_siglip, write_siglip2

from .releases import draw_picture, unit

RELATIONS = (Relation("colour", "same"), Relation("kind", "of kind"))
TEXTS = ("mug", "kite")
WRITERS = {"clip": write_clip, "siglip": write_siglip, "siglip2": write_siglip2}


@pytest.mark.parametrize("family", WRITERS)
def test_vectors_are_the_features_of_the_original_model(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    WRITERS[family](tmp_path)
    picture = draw_picture(tmp_path / "picture.png", 1)
    # A picture that is not resized has exactly the pixels of the image processor.
    load_picture(picture).resize((SIDE, SIDE)).save(picture)
    system = open_system(f"{family}:{tmp_path}", "cpu")
    found = system.encode(TEXTS, [None, picture], RELATIONS)
    backbone, preprocessor = load_backbone(tmp_path)
    model = backbone.model.eval()
    for item, text in enumerate(TEXTS):
        for place, relation in enumerate(RELATIONS):
            tokens = preprocessor.tokenize([f"{relation.description} {text}"])
            features = model.get_text_features(tokens.ids).pooler_output
            np.testing.assert_allclose(found.text[item, place], unit(features)[0], atol=1e-5)
    processed = preprocessor.image_processor(
        [load_picture(picture)],
        return_tensors="pt",
        **({"max_num_patches": 12} if family == "siglip2" else {}),
    )
    features = model.get_image_features(**processed).pooler_output
    np.testing.assert_allclose(found.image[1], np.repeat(unit(features), 2, axis=0), atol=1e-5)
    assert not found.image[0].any()


@pytest.mark.parametrize("family", WRITERS)
def test_relation_survives_a_long_text_and_the_text_a_long_relation(family: str, tmp_path: Path) -> None:
    WRITERS[family](tmp_path)
    system = open_system(f"{family}:{tmp_path}", "cpu")
    long_text = "these two items are a kind of red mug " * 30
    found = system.encode([long_text, "blue " + long_text], [None, None], RELATIONS).text
    assert abs(found[0, 0] - found[0, 1]).max() > 1e-3
    assert abs(found[0, 0] - found[1, 0]).max() > 1e-3
    wordy = [Relation("long", "the same colour and kind " * 30)]
    both = system.encode(["red mug", "blue kite"], [None, None], wordy).text
    assert abs(both[0] - both[1]).max() > 1e-3


def test_item_without_text_or_picture_has_zero_vectors(tmp_path: Path) -> None:
    write_clip(tmp_path)
    found = open_system(f"clip:{tmp_path}", "cpu").encode(["", "mug"], [None, None], RELATIONS)
    assert not found.text[0].any()
    np.testing.assert_allclose(np.linalg.norm(found.text[1], axis=-1), 1, atol=1e-6)
    assert not found.image.any()


def test_more_items_than_a_batch_are_encoded_in_order(tmp_path: Path) -> None:
    write_clip(tmp_path)
    system = open_system(f"clip:{tmp_path}", "cpu")
    texts = [f"{colour} mug {copy}" for copy in range(50) for colour in ("red", "green", "blue")]
    found = system.encode(texts, [None] * 150, RELATIONS).text
    np.testing.assert_allclose(found[149], system.encode(texts[149:], [None], RELATIONS).text[0], atol=1e-5)


def test_costs_are_reported(tmp_path: Path) -> None:
    model = write_clip(tmp_path)
    system = open_system(f"clip:{tmp_path}", "cpu")
    assert system.passes(100, 10) == Passes(text=1000, image=100)
    assert system.parameters == sum(weight.numel() for weight in model.parameters())
    assert system.dim == 32
    assert system.name == f"clip:{tmp_path}"


def test_model_of_another_family_is_rejected(tmp_path: Path) -> None:
    write_clip(tmp_path)
    with pytest.raises(InputError, match=rf"type 'clip', not 'siglip'\. Name it as clip:{tmp_path}"):
        open_system(f"siglip:{tmp_path}", "cpu")


def test_missing_picture_is_named(tmp_path: Path) -> None:
    write_clip(tmp_path)
    with pytest.raises(PictureError, match=r"picture none\.png does not exist"):
        open_system(f"clip:{tmp_path}", "cpu").encode(["mug"], [tmp_path / "none.png"], RELATIONS)


@pytest.mark.parametrize("spec", ["clip", "clip:", "blip:folder", ""])
def test_invalid_spec_is_rejected(spec: str) -> None:
    with pytest.raises(InputError, match="names no system"):
        open_system(spec, "cpu")


def test_missing_folder_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none is not a folder, so 'imagebind:.*none' cannot be opened"):
        open_system(f"imagebind:{tmp_path / 'none'}", "cpu")
