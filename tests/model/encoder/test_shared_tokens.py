"""Encoders with the same towers share tokens on disk: bitwise the same vectors, and the towers run once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.tower_digest import PROJECTIONS, tower_digest
from model.data.prepared_data import Prepared
from model.embeddings.encoding import Encoding
from model.encoder.encoder import Encoder
from model.network.backbones import ClipBackbone
from model.network.load_backbone import load_backbone
from model.network.network import Network, NetworkConfig
from model.records import INTRA_RELATION, Relation
from model.training.train import train
from tests.model.network.families import FAMILIES, write_family
from tests.model.planted import tiny_training

RELATIONS = (INTRA_RELATION, Relation("warm", "Worn in winter."))


def equal(one: Encoding, other: Encoding) -> bool:
    return np.array_equal(one.text, other.text) and np.array_equal(one.image, other.image)


def test_digest_leaves_out_the_projections(tmp_path: Path) -> None:
    for family in FAMILIES:
        write_family(family, tmp_path / family)
        backbone, _ = load_backbone(tmp_path / family)
        names = {id(weight): f"backbone.{name}" for name, weight in backbone.named_parameters()}
        left_out = {names[id(weight)] for weight in backbone.projection_weights()}
        assert left_out == PROJECTIONS & set(names.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_tokens_give_bitwise_the_same_vectors(
    family: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.encoder.encoder.BATCH_ITEMS", 5)
    write_family(family, tmp_path / family)
    backbone, preprocessor = load_backbone(tmp_path / family)
    config = NetworkConfig(objective="rcml", beta=0.6, summary_scale=1.0, backbone=backbone.config)
    encoder = Encoder(Network(config, backbone).eval(), preprocessor, RELATIONS, torch.device("cpu"))
    data = Prepared.open(prepared)
    texts = [item.text * (1 + row % 3) for row, item in enumerate(data.items[:12])]
    paths = [data.path / item.picture for item in data.items[:12]]
    alone = encoder.encode_part(texts, paths)
    written, read = (encoder.encode_part(texts, paths, tmp_path / "tokens") for _ in range(2))
    assert equal(alone, written)
    assert equal(alone, read)


@pytest.fixture(scope="module")
def frozen(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Train two seeds with frozen towers on one backbone."""
    folder = tmp_path_factory.mktemp("frozen")
    write_family("clip", folder / "clip")
    options: dict[str, Any] = {"backbone": str(folder / "clip"), "tune": "frozen", "steps": 4}
    for seed in (0, 1):
        train(tiny_training(prepared, folder / str(seed), seed=seed, **options))
    return folder / "0", folder / "1"


def test_frozen_towers_have_one_digest_and_trained_towers_another(
    frozen: tuple[Path, Path], checkpoints: dict[str, Path]
) -> None:
    one, other, trained = (tower_digest(Checkpoint.open(path)) for path in (*frozen, checkpoints["rcml"]))
    assert one == other != trained
    assert tower_digest(Checkpoint.open(checkpoints["clip"])) != trained


def test_second_encoder_reads_the_tokens_of_the_first(
    frozen: tuple[Path, Path], prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Prepared.open(prepared)
    items = ([item.text for item in data.items[:9]], [data.path / item.picture for item in data.items[:9]])
    first, second = (Encoder.from_pretrained(path, "cpu") for path in frozen)
    alone = second.encode_part(*items)
    shared = first.encode_part(*items, tmp_path)

    def refuse(*_: object) -> None:
        raise AssertionError("the towers encode again")

    monkeypatch.setattr(ClipBackbone, "text_tokens", refuse)
    monkeypatch.setattr(ClipBackbone, "image_tokens", refuse)
    assert equal(second.encode_part(*items, tmp_path), alone)
    assert not equal(shared, alone)
