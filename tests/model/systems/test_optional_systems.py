"""Tests of the systems that need packages of the extra `systems`; most are skipped without them."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model.data.pictures.images import load_picture
from model.errors import InputError
from model.records import Relation
from model.systems.families import open_system
from model.systems.optional_package import import_optional
from model.systems.system import Passes

from .releases import draw_picture, unit

RELATIONS = (Relation("colour", "the same colour"), Relation("kind", "of the same kind"))
TEXTS = ("red mug", "two blue kites")

CONFIG: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
PICTURES = {
    "mean": [0.1, 0.2, 0.3],
    "std": [0.5, 0.6, 0.7],
    "interpolation": "bilinear",
    "resize_mode": "squash",
}


def optional(module: str) -> Any:
    try:
        return import_optional(module)
    except InputError as error:
        pytest.skip(str(error))


def write_openclip(package: Any, folder: Path) -> Any:
    torch.manual_seed(0)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": CONFIG, "preprocess_cfg": PICTURES})
    )
    model = package.create_model(f"local-dir:{folder}", load_weights=False).eval()
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model


def test_openclip_vectors_are_those_of_the_package(tmp_path: Path) -> None:
    package = optional("open_clip")
    model = write_openclip(package, tmp_path)
    picture = draw_picture(tmp_path / "picture.png", 1, (50, 40))
    system = open_system(f"open_clip:{tmp_path}", "cpu")
    found = system.encode(TEXTS, [None, picture], RELATIONS)
    tokenize = package.get_tokenizer("ViT-B-32", context_length=16)
    expected = unit(model.encode_text(tokenize([f"of the same kind {text}" for text in TEXTS])))
    np.testing.assert_allclose(found.text[:, 1], expected, atol=1e-5)
    small = load_picture(picture).resize((32, 32), 2)
    pixels = (torch.from_numpy(np.array(small)) / 255 - torch.tensor(PICTURES["mean"])) / torch.tensor(
        PICTURES["std"]
    )
    shown = unit(model.encode_image(pixels.permute(2, 0, 1)[None]))
    np.testing.assert_allclose(found.image[1], np.repeat(shown, 2, axis=0), atol=1e-4)
    assert not found.image[0].any()
    assert system.passes(100, 10) == Passes(text=1000, image=100)


def test_openclip_relation_survives_a_long_text(tmp_path: Path) -> None:
    write_openclip(optional("open_clip"), tmp_path)
    found = open_system(f"open_clip:{tmp_path}", "cpu").encode(["red mug " * 30], [None], RELATIONS)
    assert abs(found.text[0, 0] - found.text[0, 1]).max() > 1e-3


def test_openclip_architecture_is_opened_with_a_file(tmp_path: Path) -> None:
    package = optional("open_clip")
    torch.manual_seed(0)
    model = package.create_model("MobileCLIP-S1", load_weights=False).eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    picture = draw_picture(tmp_path / "picture.png", 1, (256, 256))
    system = open_system(f"open_clip:MobileCLIP-S1:{tmp_path / 'weights.safetensors'}", "cpu")
    pixels = torch.from_numpy(np.array(load_picture(picture))).permute(2, 0, 1)[None] / 255
    expected = unit(model.encode_image(pixels))  # MobileCLIP does not normalise its pixels
    np.testing.assert_allclose(system.encode(["mug"], [picture], RELATIONS).image[0, :1], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("ViT-B-32:weights.pt", "not a safetensors file"),
        ("ViT-H-14:weights.safetensors", "differently for different weights"),
        ("ViT-B-16-SigLIP:weights.safetensors", "tokenizer of ViT-B-16-SigLIP is on the Hub"),
        ("Nothing:weights.safetensors", "no architecture 'Nothing'"),
        ("ViT-B-32:none.safetensors", "cannot load"),
        ("ViT-B-32", "neither a folder nor"),
    ],
)
def test_openclip_source_that_cannot_be_read_is_rejected(source: str, named: str) -> None:
    optional("open_clip")
    with pytest.raises(InputError, match=named):
        open_system(f"open_clip:{source}", "cpu")


@pytest.mark.parametrize(
    ("family", "module"), [("open_clip", "open_clip"), ("qwen-vl-embedding", "sentence_transformers")]
)
def test_missing_package_names_the_pip_command(
    family: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        InputError, match=rf"{module} cannot be imported .* Run `pip install 'rcml\[systems\]'`"
    ):
        open_system(f"{family}:{tmp_path}", "cpu")
