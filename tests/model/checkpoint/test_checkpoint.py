"""Tests of a checkpoint on disk: its contents, opening it without torch, and the rejection of changed weights."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model.checkpoint.checkpoint import Checkpoint, save_relation_vectors
from model.data.prepared_data import Prepared
from model.encoder.encoder import Encoder
from model.errors import ArtifactError
from model.records import INTRA_RELATION, Relation
from model.relation_file import load_relations, save_relations


def test_checkpoint_contains_trained_relations(checkpoints: dict[str, Path], prepared: Path) -> None:
    checkpoint, data = Checkpoint.open(checkpoints["rcml"]), Prepared.open(prepared)
    assert checkpoint.relations == data.relations
    assert checkpoint.manifest.parents == {"prepared": data.manifest.digest}
    assert checkpoint.relation_vectors.shape == (3, checkpoint.dim) == (3, 32)


def test_relation_vector_is_eot_state_of_description(checkpoints: dict[str, Path]) -> None:
    checkpoint = Checkpoint.open(checkpoints["rcml"])
    encoder = Encoder.from_pretrained(checkpoints["rcml"], "cpu")
    network, preprocessor = encoder.network, encoder.preprocessor
    tokens = network.backbone.text_tokens(preprocessor.tokenize([checkpoint.relations[1].description]))
    expected = (tokens.states[0, -1] @ network.backbone.text_projection()).detach().numpy()
    np.testing.assert_allclose(checkpoint.relation_vectors[1], expected, atol=1e-5)


def test_loads_relations_as_saved(tmp_path: Path) -> None:
    relations = (INTRA_RELATION, Relation("thé", "Gekauft für „Tee“."))
    save_relations(tmp_path, relations)
    assert load_relations(tmp_path) == relations
    assert "thé" in (tmp_path / "relations.json").read_text(encoding="utf-8")


def test_loads_domain_as_saved_and_omits_empty_domain_from_file(tmp_path: Path) -> None:
    relations = (Relation("tea", "Bought for tea.", domain="Grocery"), Relation("pots", "Bought to plant."))
    save_relations(tmp_path, relations)
    assert load_relations(tmp_path) == relations
    raw = json.loads((tmp_path / "relations.json").read_text())
    assert [one.get("domain") for one in raw] == ["Grocery", None]


def test_loads_name_as_saved_and_omits_empty_name_from_file(tmp_path: Path) -> None:
    relations = (
        Relation("tea-pots", "Bought for tea.", name="Tea, then Pots"),
        Relation("pots", "To plant."),
    )
    save_relations(tmp_path, relations)
    assert load_relations(tmp_path) == relations
    raw = json.loads((tmp_path / "relations.json").read_text())
    assert [one.get("name") for one in raw] == ["Tea, then Pots", None]


def test_relation_vectors_keep_float32_values(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    save_relation_vectors(tmp_path, vectors)
    np.testing.assert_array_equal(load_file(tmp_path / "relations.safetensors")["relation_vectors"], vectors)


def test_opens_checkpoint_without_torch(checkpoints: dict[str, Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from model.checkpoint.checkpoint import Checkpoint; "
        "print(Checkpoint.open(Path(sys.argv[1])).dim, {'torch', 'transformers', 'polars'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(checkpoints["rcml"])]
    root = Path(__file__).parents[3]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout
    assert shown == "32 set()\n"


def test_checkpoint_contains_all_required_files(checkpoints: dict[str, Path]) -> None:
    names = {path.name for path in checkpoints["rcml"].iterdir()}
    assert {
        "README.md", "config.json", "manifest.json", "metrics.json", "model.safetensors", "network.json",
        "preprocessor_config.json", "relations.json", "relations.safetensors", "tokenizer.json",
        "validity.safetensors", "calibration.json",
    } <= names  # fmt: skip
    assert "cache" not in names
    assert not [name for name in names if name.endswith((".bin", ".pkl", ".pt", ".npy"))]


def test_model_card_shows_figures_and_relations(checkpoints: dict[str, Path]) -> None:
    card = (checkpoints["rcml"] / "README.md").read_text()
    metrics = json.loads((checkpoints["rcml"] / "metrics.json").read_text())
    assert card.startswith("---\nlibrary_name: rcml\n")
    assert f"{metrics['validation_hit_at_5']:.3f}" in card
    assert f"{metrics['parameters']:,} parameters" in card
    assert "- `colour`: These two have the same colour." in card


def test_rejects_changed_weights(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkpoints["rcml"], copy)
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(ArtifactError, match=r"model\.safetensors was changed after it was written"):
        Encoder.from_pretrained(copy, "cpu")
