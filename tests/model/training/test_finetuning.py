"""Tests of the fine-tuning modes: all weights, adapters that are merged at the end, or only the attention."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from model.checkpoint.checkpoint import Checkpoint
from model.config import Objective, TrainConfig
from model.data.prepared_data import Prepared
from model.encoder.encoder import Encoder
from model.errors import InputError
from model.network.backbones import ClipBackbone
from model.network.inputs import PictureInput, Tokens
from model.network.load_backbone import load_backbone, small_backbone
from model.network.network import Network, NetworkConfig
from model.network.processor import Preprocessor
from model.records import Split
from model.training.finetuning import select_trainable
from model.training.train import train
from tests.model.network.families import FAMILIES, write_family
from tests.model.planted import TINY, tiny_training

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")


@pytest.fixture(scope="module")
def clip_folder(preprocessor: Preprocessor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(5)
    small_backbone(TINY, preprocessor).model.save_pretrained(folder)
    preprocessor.save(folder)
    return folder


def tuned(prepared: Path, clip_folder: Path, out: Path, **options: Any) -> dict[str, Tensor]:
    """Train, and return the change of every weight of the towers and the final weights of the attention."""
    chosen: dict[str, Any] = {"steps": 12, "learning_rate": 3e-3, "validate_every": 4, **options}
    train(tiny_training(prepared, out, backbone=str(clip_folder), **chosen))
    before = {
        f"backbone.model.{name}": one for name, one in load_file(clip_folder / "model.safetensors").items()
    }
    after = load_file(out / "model.safetensors")
    return {name: one - before[name] if name in before else one for name, one in after.items()}


@pytest.mark.parametrize("objective", ["siglip", "unicl", "declip"])
def test_frozen_towers_train_with_losses_of_rivals(
    objective: Objective, prepared: Path, clip_folder: Path, tmp_path: Path
) -> None:
    change = tuned(prepared, clip_folder, tmp_path / "out", tune="frozen", objective=objective)
    changed = {name for name, one in change.items() if name.startswith("backbone") and one.any()}
    assert changed == {f"backbone.model.{name}_projection.weight" for name in ("text", "visual")}
    losses = [entry.loss for entry in Checkpoint.open(tmp_path / "out").metrics.history]
    assert losses[-1] < losses[0]


def test_frozen_towers_stay_unchanged_while_projections_and_attention_train(
    prepared: Path, clip_folder: Path, tmp_path: Path
) -> None:
    change = tuned(prepared, clip_folder, tmp_path / "out", tune="frozen")
    changed = {name for name, one in change.items() if name.startswith("backbone") and one.any()}
    assert changed == {f"backbone.model.{name}_projection.weight" for name in ("text", "visual")}
    assert change["attention.bias.matrix"].any()
    assert not torch.equal(change["attention.output"], torch.eye(TINY.width))
    history = Checkpoint.open(tmp_path / "out").metrics.history
    assert history[0].loss > history[-1].loss


def test_frozen_towers_encode_every_item_once(
    prepared: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    encode = ClipBackbone.image_tokens

    def count(backbone: ClipBackbone, pictures: PictureInput) -> Tokens:
        seen.append(len(pictures))
        return encode(backbone, pictures)

    monkeypatch.setattr(ClipBackbone, "image_tokens", count)
    tuned(prepared, clip_folder, tmp_path / "out", tune="frozen")
    items = Prepared.open(prepared)
    validation = count_validation_items(items)
    # Single pictures are encoded to find out the number of tokens.
    assert sum(count for count in seen if count > 1) == len(items.rows(Split.TRAIN)) + validation


def count_validation_items(prepared: Prepared) -> int:
    """Return the number of validation items and of training items that have a partner among them."""
    held_out = {prepared.items[row].item_id for row in prepared.rows(Split.VALIDATION)}
    across = [edge for edge in prepared.edges_across if edge.split == Split.VALIDATION]
    asking = {item for edge in across for item in (edge.item_a, edge.item_b)} - held_out
    return len(held_out) + len(asking)


def test_defaults_of_frozen_towers_can_be_overridden() -> None:
    folders: dict[str, Any] = {"prepared": "p", "out": "o", "backbone": "b"}
    config = TrainConfig(tune="frozen", steps=7, **folders)
    assert (config.steps, config.validate_every, config.temperature, config.learning_rate) == (
        7,
        10,
        0.2,
        1e-4,
    )
    full = TrainConfig(**folders)
    assert (full.steps, full.validate_every, full.temperature, full.learning_rate) == (600, 100, 0.1, None)


@needs_peft
def test_lora_makes_low_rank_changes_and_checkpoint_has_no_adapters(
    prepared: Path, clip_folder: Path, tmp_path: Path
) -> None:
    change = tuned(prepared, clip_folder, tmp_path / "out", tune="lora", lora_rank=2)
    query = change["backbone.model.text_model.encoder.layers.0.self_attn.q_proj.weight"]
    values = torch.linalg.svdvals(query)
    assert values[1] > 1e-5
    assert values[2] < 1e-3 * values[0]
    assert (change["backbone.model.text_model.embeddings.token_embedding.weight"] == 0).all()
    assert [name for name in change if "lora" in name] == []
    assert Checkpoint.open(tmp_path / "out").metrics.parameters == sum(one.numel() for one in change.values())
    encoding = Encoder.from_pretrained(tmp_path / "out", "cpu").encode_items(
        ["hat"], [Image.new("RGB", (9, 9))]
    )
    np.testing.assert_allclose(np.linalg.norm(encoding.text, axis=-1), 1.0, atol=1e-5)


@needs_peft
@pytest.mark.parametrize("kind", FAMILIES)
def test_merging_adapters_does_not_change_tokens(kind: str, tmp_path: Path) -> None:
    write_family(kind, tmp_path)
    backbone, preprocessor = load_backbone(tmp_path)
    config = NetworkConfig(objective="rcml", beta=0.6, summary_scale=1.0, backbone=backbone.config)
    network = Network(config, backbone)
    merge = select_trainable(
        network, TrainConfig(prepared=tmp_path, out=tmp_path, backbone=str(tmp_path), tune="lora")
    )
    for name, weight in network.named_parameters():
        if "lora_B" in name:  # initially 0, which would make the adapters ineffective
            torch.nn.init.normal_(weight, std=0.1)
    texts, pictures = preprocessor.tokenize(["red mug", "hat"]), preprocessor.blank(2)
    preprocessor.decode(Image.new("RGB", (40, 30), "red"), pictures, 0)
    preprocessor.decode(Image.new("RGB", (30, 40), "blue"), pictures, 1)

    def states() -> list[Tensor]:
        with torch.inference_mode():
            read = (
                (backbone.text_tokens(texts), backbone.text_projection()),
                (backbone.image_tokens(preprocessor.normalise(pictures)), backbone.image_projection()),
            )
            return [tokens.states[tokens.mask] @ projection for tokens, projection in read]

    network.eval()
    before = states()
    merge()
    torch.testing.assert_close(states(), before, rtol=1e-3, atol=1e-4)


@needs_peft
def test_lora_resumes_from_its_adapters(prepared: Path, clip_folder: Path, tmp_path: Path) -> None:
    def stop(step: int, *_: object) -> float:
        if step == 8:
            raise KeyboardInterrupt
        return 1.0

    options: dict[str, Any] = {"tune": "lora", "lora_rank": 2, "save_every": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.training.steps.training_steps.schedule", lambda *_: 1.0)
        calm = tuned(prepared, clip_folder, tmp_path / "calm", **options)
        patch.setattr("model.training.steps.training_steps.schedule", stop)
        with pytest.raises(KeyboardInterrupt):
            tuned(prepared, clip_folder, tmp_path / "out", **options)
        patch.setattr("model.training.steps.training_steps.schedule", lambda *_: 1.0)
        again = tuned(prepared, clip_folder, tmp_path / "out", resume=True, **options)
    assert all(torch.equal(one, again[name]) for name, one in calm.items())
    saved = load_file(tmp_path / "out.run" / "last.safetensors")
    learnt = [name for name in saved if name.startswith("network.")]
    assert {name for name in learnt if "lora" not in name} == {
        f"network.attention.{name}"
        for name in (
            *("query", "key", "value", "output"),
            *("bias.matrix", "bias.offset", "bias.direction"),
        )
    }


def test_lora_without_peft_names_package_to_install(
    prepared: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"peft, which is not installed\. Run `pip install 'rcml\[lora\]'`"):
        tuned(prepared, clip_folder, tmp_path / "out", tune="lora")
    assert list(tmp_path.iterdir()) == []


def test_rejects_frozen_backbone_without_pretrained_weights() -> None:
    with pytest.raises(ValidationError, match="--tune frozen requires a pretrained backbone"):
        TrainConfig(prepared=Path("p"), out=Path("o"), tune="frozen")


@pytest.mark.parametrize("micro_batch", [None, 20])
def test_gradient_checkpointing_changes_nothing_but_what_is_stored(
    micro_batch: int | None, prepared: Path, clip_folder: Path, tmp_path: Path
) -> None:
    found = [
        tuned(
            prepared,
            clip_folder,
            tmp_path / str(again),
            gradient_checkpointing=again,
            micro_batch=micro_batch,
            steps=3,
        )
        for again in (False, True)
    ]
    for name, change in found[0].items():
        torch.testing.assert_close(found[1][name], change, rtol=1e-4, atol=1e-5)


def test_gradient_checkpointing_computes_layers_again_with_same_dropout(
    preprocessor: Preprocessor, tmp_path: Path
) -> None:
    gradients, calls = [], []
    for again in (False, True):
        torch.manual_seed(5)
        backbone = small_backbone(TINY, preprocessor)
        config = NetworkConfig(objective="rcml", beta=0.6, summary_scale=1.0, backbone=backbone.config)
        network = Network(config, backbone).train()
        select_trainable(network, tiny_training(tmp_path, tmp_path, gradient_checkpointing=again))
        layer = backbone.model.text_model.encoder.layers[0]
        layer.self_attn.dropout = 0.5
        count: list[int] = []
        layer.mlp.register_forward_pre_hook(lambda *_, count=count: count.append(1))
        torch.manual_seed(1)
        text = preprocessor.tokenize(["red mug", "a blue mug for tea"])
        network.text_tokens(text).states.square().sum().backward()
        gradients.append(layer.self_attn.q_proj.weight.grad)
        calls.append(len(count))
    assert calls == [1, 2]
    torch.testing.assert_close(gradients[1], gradients[0])
