"""Tests of `rcml backbone make`: two tiny pretrained towers become a backbone that keeps their geometry."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModel,
    BertTokenizer,
    ConvNextConfig,
    ConvNextV2Config,
    Dinov2Config,
    MobileNetV2Config,
    MPNetConfig,
    PoolFormerConfig,
    PreTrainedConfig,
    RegNetConfig,
    ResNetConfig,
    SwinConfig,
    T5Config,
    ViTConfig,
)
from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from model.config import MakeBackboneConfig
from model.encoder.encoder import Encoder
from model.errors import InputError
from model.network.load_backbone import load_backbone
from model.network.make_backbone import make_backbone
from model.network.network import Network, NetworkConfig
from service.cli import main

from .families import (
    LAYERS,
    SIDE,
    TEXT_LENGTH,
    WORDS,
    bert,
    distilbert,
    efficientnet,
    enliven,
    picture_shape,
    write_clip,
)

TEXTS = ["red mug", "these two items have the same colour", "hat", "a green kite of the same kind"]


def mpnet() -> PreTrainedConfig:
    return MPNetConfig(
        vocab_size=len(WORDS) + 5, max_position_embeddings=TEXT_LENGTH + 2, pad_token_id=1, **LAYERS
    )


def write_text_tower(folder: Path, config: PreTrainedConfig) -> Path:
    torch.manual_seed(1)
    AutoModel.from_config(config).save_pretrained(folder)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    BertTokenizer(vocab={word: row for row, word in enumerate(vocabulary)}).save_pretrained(folder)
    return folder


def write_image_tower(folder: Path, config: PreTrainedConfig) -> Path:
    torch.manual_seed(2)
    model = AutoModel.from_config(config)
    enliven(model)
    model.save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    convolutional = config.model_type == "efficientnet"
    processor = EfficientNetImageProcessorPil(size=size) if convolutional else ViTImageProcessorPil(size=size)
    processor.save_pretrained(folder)
    return folder


def write_sentence_files(folder: Path, pooling: dict[str, Any], *further: str) -> None:
    """Add the files of sentence-transformers, with modules after the pooling."""
    names = ["Transformer", "Pooling", *further]
    modules = [
        {
            "idx": place,
            "name": str(place),
            "path": f"{place}_{name}" if place else "",
            "type": f"st.models.{name}",
        }
        for place, name in enumerate(names)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **pooling}))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 9, "do_lower_case": false}')


MEAN = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write a folder for each tower; the MPNet is a sentence-transformers folder."""
    folder = tmp_path_factory.mktemp("towers")
    texts = {"bert": bert(), "mpnet": mpnet(), "distilbert": distilbert()}
    images = {"efficientnet": efficientnet(), "vit": ViTConfig(**picture_shape())}
    written = {
        **{name: write_text_tower(folder / name, config) for name, config in texts.items()},
        **{name: write_image_tower(folder / name, config) for name, config in images.items()},
    }
    write_sentence_files(written["mpnet"], MEAN, "Normalize")
    return written


def made(towers: dict[str, Path], out: Path, text: str, image: str, **options: Any) -> Path:
    make_backbone(MakeBackboneConfig(text=str(towers[text]), image=str(towers[image]), out=out, **options))
    return out


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 30, 3), np.uint8))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def summaries(folder: Path) -> tuple[Tensor, Tensor]:
    """Return the features of `TEXTS` and of four pictures from the backbone in `folder`."""
    backbone, preprocessor = load_backbone(folder)
    pictures = preprocessor.blank(4)
    for row in range(4):
        preprocessor.decode(noise(row), pictures, row)
    with torch.inference_mode():
        return (
            backbone.eval().text_tokens(preprocessor.tokenize(TEXTS)).summary_states()
            @ backbone.text_projection(),
            backbone.image_tokens(preprocessor.normalise(pictures)).summary_states()
            @ backbone.image_projection(),
        )


@pytest.mark.parametrize(
    ("text", "image"), [("bert", "efficientnet"), ("mpnet", "vit"), ("distilbert", "efficientnet")]
)
def test_trains_saves_and_opens_with_vectors_of_backbone(
    text: str, image: str, towers: dict[str, Path], prepared: Path, tmp_path: Path
) -> None:
    out, checkpoint = tmp_path / "backbone", tmp_path / "checkpoint"
    common = ["--prepared", str(prepared)]
    named = ["--text", str(towers[text]), "--image", str(towers[image])]
    assert main(["backbone", "make", *named, "--out", str(out)]) == 0
    options = [
        "--tune",
        "full",
        "--steps",
        "1",
        "--learning-rate",
        "1e-9",
        "--batch-size",
        "64",
        "--micro-batch",
        "20",
        "--conditioning",
        "paper",
        "--no-normalise-tokens",
    ]
    assert main(["train", "--backbone", str(out), "--out", str(checkpoint), *common, *options]) == 0
    opened = Encoder.from_pretrained(checkpoint, "cpu")
    backbone, preprocessor = load_backbone(out)
    config = NetworkConfig(objective="rcml", beta=0.6, summary_scale=1.0, backbone=backbone.config)
    expected = Encoder(Network(config, backbone).eval(), preprocessor, opened.relations, torch.device("cpu"))
    pictures = [noise(row) for row in range(4)]
    ours, theirs = (each.encode_items(TEXTS, pictures) for each in (opened, expected))
    np.testing.assert_allclose(ours.text, theirs.text, rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours.image, theirs.image, rtol=0, atol=1e-5)
    opened.save_pretrained(tmp_path / "again")
    again = Encoder.from_pretrained(tmp_path / "again", "cpu").encode_items(TEXTS, pictures)
    np.testing.assert_array_equal(again.text, ours.text)
    np.testing.assert_array_equal(again.image, ours.image)


def test_full_tuning_changes_every_part_but_batch_statistics(
    towers: dict[str, Path], prepared: Path, tmp_path: Path
) -> None:
    out = made(towers, tmp_path / "backbone", "bert", "efficientnet")
    options = ["--steps", "1", "--batch-size", "32", "--weight-decay", "0", "--learning-rate", "1e-3"]
    named = ["--prepared", str(prepared), "--backbone", str(out), "--out", str(tmp_path / "checkpoint")]
    assert main(["train", *named, *options]) == 0
    before, after = load_file(out / "model.safetensors"), load_file(tmp_path / "checkpoint/model.safetensors")
    same = {name for name, tensor in before.items() if torch.equal(tensor, after[f"backbone.model.{name}"])}
    # BERT's pooled output is not used, because the summary is the mean.
    unused = {"logit_scale", "text_model.pooler.dense.weight", "text_model.pooler.dense.bias"}
    statistics = {name for name in before if "running" in name or "num_batches" in name}
    assert statistics
    assert statistics | unused <= same
    assert {"visual_projection.weight", "text_projection.weight"}.isdisjoint(same)
    assert "vision_model.encoder.top_conv.weight" not in same


def test_weights_of_towers_are_unchanged(towers: dict[str, Path], tmp_path: Path) -> None:
    found = load_file(made(towers, tmp_path / "out", "bert", "efficientnet") / "model.safetensors")
    for prefix, tower in (("text_model", "bert"), ("vision_model", "efficientnet")):
        for name, tensor in load_file(towers[tower] / "model.safetensors").items():
            assert torch.equal(found[f"{prefix}.{name}"], tensor)


@torch.inference_mode()
def test_summary_of_sentence_tower_is_mean_of_its_tokens(towers: dict[str, Path], tmp_path: Path) -> None:
    backbone, preprocessor = load_backbone(made(towers, tmp_path / "out", "mpnet", "vit"))
    text = preprocessor.tokenize([*TEXTS, "red mug " * 9])
    assert text.ids.shape[1] == 9  # max_seq_length in sentence_bert_config.json
    tower = AutoModel.from_pretrained(towers["mpnet"]).eval()
    states = tower(input_ids=text.ids, attention_mask=text.mask).last_hidden_state
    expected = torch.stack([own[real].mean(dim=0) for own, real in zip(states, text.mask, strict=True)])
    torch.testing.assert_close(
        backbone.eval().text_tokens(text).summary_states(), expected, rtol=0, atol=1e-5
    )


SMALL: dict[str, Any] = {"hidden_sizes": [8, 16], "depths": [1, 1]}
IMAGE_TOWERS: dict[str, PreTrainedConfig] = {
    "resnet": ResNetConfig(embedding_size=8, layer_type="basic", **SMALL),
    "regnet": RegNetConfig(embedding_size=8, groups_width=4, **SMALL),
    "convnext": ConvNextConfig(num_stages=2, initializer_range=0.3, **SMALL),
    "convnextv2": ConvNextV2Config(num_stages=2, initializer_range=0.3, **SMALL),
    "mobilenet_v2": MobileNetV2Config(depth_multiplier=0.1),
    "poolformer": PoolFormerConfig(hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1]),
    "swin": SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 1], image_size=SIDE, window_size=2),
    "dinov2": Dinov2Config(**{**picture_shape(), "patch_size": 8}),
}


@torch.inference_mode()
@pytest.mark.parametrize("kind", IMAGE_TOWERS)
def test_joins_image_tower_with_its_own_pooled_output(
    kind: str, towers: dict[str, Path], tmp_path: Path
) -> None:
    folder = write_image_tower(tmp_path / kind, IMAGE_TOWERS[kind])
    backbone, preprocessor = load_backbone(
        made({**towers, kind: folder}, tmp_path / "out", "distilbert", kind)
    )
    pictures = preprocessor.blank(2)
    for row in range(2):
        preprocessor.decode(noise(row), pictures, row)
    pixels = preprocessor.normalise(pictures)
    out = AutoModel.from_pretrained(folder).eval()(pixel_values=pixels.pixels)
    # PoolFormer has no pooled output, so the mean of its feature map is taken.
    own = out.last_hidden_state.mean(dim=(2, 3)) if kind == "poolformer" else out.pooler_output.flatten(1)
    found = backbone.eval().image_tokens(pixels).summary_states()
    torch.testing.assert_close(found, own, rtol=0, atol=1e-5)
    assert (own[0] - own[1]).norm() > 1e-4
    assert backbone.image_projection().shape == (own.shape[1], 32)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "first"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "cls"}, "first"),
    ],
)
def test_records_pooling_of_sentence_tower(
    pooling: dict[str, Any], expected: str, towers: dict[str, Path], tmp_path: Path
) -> None:
    folder = copytree(towers["bert"], tmp_path / "sentences")
    write_sentence_files(folder, pooling)
    out = made({**towers, "own": folder}, tmp_path / "out", "own", "vit")
    config = json.loads((out / "config.json").read_text())
    assert (config["text_config"]["rcml_pooling"], config["vision_config"]["rcml_pooling"]) == (
        expected,
        "pooled",
    )


def test_image_tower_without_trained_pooler_is_summarised_by_its_first_token(
    towers: dict[str, Path], tmp_path: Path
) -> None:
    folder = copytree(towers["vit"], tmp_path / "classifier")
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("pooler.")}
    assert len(kept) == len(weights) - 2
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    out = made({**towers, "own": folder}, tmp_path / "out", "bert", "own")
    assert json.loads((out / "config.json").read_text())["vision_config"]["rcml_pooling"] == "first"


# The projections.


def test_projections_are_orthogonal(towers: dict[str, Path], tmp_path: Path) -> None:
    found = load_file(made(towers, tmp_path / "out", "bert", "efficientnet", dim=20) / "model.safetensors")
    for name in ("text_projection.weight", "visual_projection.weight"):
        torch.testing.assert_close(found[name] @ found[name].T, torch.eye(20), rtol=0, atol=1e-5)


def test_text_projection_is_the_identity_at_default_length(towers: dict[str, Path], tmp_path: Path) -> None:
    weights = load_file(made(towers, tmp_path / "out", "bert", "vit") / "model.safetensors")
    assert torch.equal(weights["text_projection.weight"], torch.eye(32))


def test_longer_vectors_keep_cosines_of_towers(towers: dict[str, Path], tmp_path: Path) -> None:
    same, longer = (
        summaries(made(towers, tmp_path / str(dim), "bert", "efficientnet", dim=dim)) for dim in (32, 48)
    )
    for one, other in zip(same, longer, strict=True):
        cosines = [F.cosine_similarity(each[:, None], each[None], dim=-1) for each in (one, other)]
        torch.testing.assert_close(cosines[0], cosines[1], rtol=0, atol=1e-5)


def test_same_seed_gives_same_bytes(towers: dict[str, Path], tmp_path: Path) -> None:
    first, same, other = (
        contents(made(towers, tmp_path / name, "distilbert", "vit", dim=16, seed=seed))
        for name, seed in (("a", 4), ("b", 4), ("c", 5))
    )
    assert first == same
    assert {name for name in first if first[name] != other[name]} == {"model.safetensors"}


def test_folder_does_not_contain_paths_of_towers(towers: dict[str, Path], tmp_path: Path) -> None:
    for name, content in contents(made(towers, tmp_path / "out", "mpnet", "efficientnet")).items():
        assert str(towers["mpnet"].parent).encode() not in content, name


# Errors.


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")


def without_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    gone = sorted(name for name in weights if not name.startswith("pooler"))[0]
    del weights[gone]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


def with_dense(folder: Path) -> None:
    write_sentence_files(folder, MEAN, "Dense")


def with_last_token(folder: Path) -> None:
    write_sentence_files(folder, {"pooling_mode_lasttoken": True})


def with_processor_of_another_size(folder: Path) -> None:
    ViTImageProcessorPil(size={"height": 48, "width": 48}).save_pretrained(folder)


@pytest.mark.parametrize(
    ("tower", "damage", "said"),
    [
        (
            "bert",
            empty,
            r"No text tower .* '{}': config.json is missing\. Give the folder .* with config\.json",
        ),
        ("vit", empty, r"No image tower .* '{}': config.json is missing\. Give the folder .* \(ViT, DINOv2"),
        ("bert", pickled, r"No text tower .* '{}'.*Save the tower as model\.safetensors; pickled weights"),
        (
            "bert",
            without_a_weight,
            r"weights in '{}' do not match its config\.json: embeddings\.\S+ is missing",
        ),
        ("bert", without_tokenizer, r"No tokenizer .* '{}': it has no vocabulary\. Add the tokenizer\.json"),
        (
            "vit",
            lambda folder: (folder / "preprocessor_config.json").unlink(),
            r"No image processor .* '{}'.*Add the preprocessor_config\.json",
        ),
        ("vit", with_processor_of_another_size, r"'{}' cannot process the output of its image processor"),
        ("bert", with_dense, r"'{}' ends with Dense.*delete this module from modules\.json"),
        ("bert", with_last_token, r"'{}' has the pooling lasttoken\. Use a tower that pools by the mean"),
    ],
)
def test_names_fault_of_tower_and_remedy(
    tower: str, damage: Callable[[Path], object], said: str, towers: dict[str, Path], tmp_path: Path
) -> None:
    folder = copytree(towers[tower], tmp_path / "damaged")
    damage(folder)
    names = ("damaged", "vit") if tower == "bert" else ("bert", "damaged")
    with pytest.raises(InputError, match=said.format(folder)):
        made({**towers, "damaged": folder}, tmp_path / "out", *names)
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_rejects_models_that_are_not_the_tower_asked_for(towers: dict[str, Path], tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    shape: dict[str, Any] = {
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 16,
        "num_layers": 1,
        "num_heads": 2,
        "vocab_size": 64,
    }
    write_text_tower(tmp_path / "t5", T5Config(**shape))
    more = {**towers, "clip": tmp_path / "clip", "t5": tmp_path / "t5", "none": tmp_path / "none"}
    for text, image, said in (
        ("vit", "vit", r"is not a text tower: its model \(vit\) reads pixel_values\. .* with --text\."),
        ("bert", "bert", r"is not an image tower: its model \(bert\) reads input_ids\. .* with --image\."),
        ("t5", "vit", r"is not a text tower: its model \(t5\) has a decoder"),
        ("clip", "vit", r"has both towers \(clip\).*Train on it directly with `rcml train --backbone`"),
        ("none", "vit", r"No text tower could be loaded from .*/none': there is no such folder\."),
    ):
        with pytest.raises(InputError, match=said):
            made(more, tmp_path / "out", text, image)


def test_does_not_replace_folder(towers: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(
        InputError, match=r"out exists\. Choose another --out, or remove this file or folder\."
    ):
        made(towers, tmp_path / "out", "bert", "vit")
    assert list((tmp_path / "out").iterdir()) == []
