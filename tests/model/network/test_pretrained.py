"""Tests of loading and saving an encoder: it loads exactly as saved, and it saves its current weights."""

import ast
import json
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

import model
from model.artifact import write_artifact
from model.checkpoint.checkpoint import Checkpoint, RecordedOptions
from model.encoder.encoder import Encoder
from model.errors import ArtifactError, InputError

TEXTS = ["red mug", "a green kite", ""]
PICTURES = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "white")]


@pytest.fixture(scope="module")
def checkpoint(checkpoints: dict[str, Path]) -> Path:
    return checkpoints["rcml"]


@pytest.fixture
def network_calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Block all network access and return the list of attempts."""
    calls: list[object] = []

    def refuse(*address: object, **_: object) -> None:
        calls.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return calls


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tuned(checkpoint: Path) -> Encoder:
    """Load an encoder and change all of its weights with an optimizer that does not update their version counters."""
    encoder = Encoder.from_pretrained(checkpoint, "cpu")
    encoder.encode_texts(TEXTS)  # caches the relations under the old weights
    optimizer = torch.optim.AdamW(encoder.network.parameters(), lr=0.01, fused=True)
    for weight in encoder.network.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    return encoder


def remade(
    checkpoint: Path, target: Path, change: Callable[[Path], object], config: BaseModel | None = None
) -> Path:
    """Write a copy of the checkpoint with `change` applied to its files and with a matching manifest."""
    source = Checkpoint.open(checkpoint)
    with write_artifact(target, "checkpoint", config or source.config, source.manifest.parents) as draft:
        for name in source.manifest.files:
            (draft.path / name).write_bytes((checkpoint / name).read_bytes())
        change(draft.path)
    return target


def reweighed(checkpoint: Path, target: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    """Write a copy of the checkpoint whose weights `change` modifies in place."""

    def write(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return remade(checkpoint, target, write)


# Saving.


def test_saves_encoder_byte_for_byte_after_use(checkpoint: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(str(checkpoint), "cpu")
    encoder.encode_items(TEXTS, PICTURES)
    encoder.save_pretrained(str(tmp_path / "again"))
    assert contents(tmp_path / "again") == contents(checkpoint)
    assert Checkpoint.open(tmp_path / "again").manifest == Checkpoint.open(checkpoint).manifest


def test_saves_current_weights(checkpoint: Path, tmp_path: Path) -> None:
    encoder = tuned(checkpoint)
    encoder.save_pretrained(tmp_path / "tuned")
    again = Encoder.from_pretrained(tmp_path / "tuned", "cpu")
    weights = encoder.network.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in again.network.state_dict().items())
    now, then = encoder.encode_items(TEXTS, PICTURES), again.encode_items(TEXTS, PICTURES)
    np.testing.assert_array_equal(then.text, now.text)
    np.testing.assert_array_equal(then.image, now.image)
    before = Encoder.from_pretrained(checkpoint, "cpu").encode_items(TEXTS, PICTURES)
    assert np.abs(now.text - before.text).max() > 0.01


def test_saves_relation_vectors_of_current_weights(checkpoint: Path, tmp_path: Path) -> None:
    tuned(checkpoint).save_pretrained(tmp_path / "tuned")
    kept = Checkpoint.open(tmp_path / "tuned").relation_vectors
    again = Encoder.from_pretrained(tmp_path / "tuned", "cpu").relation_vectors
    np.testing.assert_allclose(kept, again, atol=1e-6)
    assert np.abs(kept - Checkpoint.open(checkpoint).relation_vectors).max() > 0.01


def test_records_source_checkpoint_of_changed_encoder(checkpoint: Path, tmp_path: Path) -> None:
    tuned(checkpoint).save_pretrained(tmp_path / "tuned")
    source, saved = Checkpoint.open(checkpoint), Checkpoint.open(tmp_path / "tuned")
    assert saved.manifest.parents == {**source.manifest.parents, "checkpoint": source.manifest.digest}
    assert saved.manifest.counts == source.manifest.counts
    assert (saved.metrics, saved.card, saved.config) == (source.metrics, source.card, source.config)


def test_saves_encoder_into_its_source_folder(checkpoint: Path, tmp_path: Path) -> None:
    copy = copytree(checkpoint, tmp_path / "copy")
    Encoder.from_pretrained(copy, "cpu").save_pretrained(copy)
    assert contents(copy) == contents(checkpoint)


def test_loads_a_checkpoint_whose_card_cannot_be_read_but_does_not_save_it(
    checkpoint: Path, tmp_path: Path
) -> None:
    (Path(copytree(checkpoint, tmp_path / "copy")) / "README.md").write_bytes(b"# Our best one \xff\n")
    encoder = Encoder.from_pretrained(tmp_path / "copy", "cpu")
    assert encoder.encode_texts(["red mug"]).shape[0] == 1
    with pytest.raises(ArtifactError, match=r"README\.md is not UTF-8 \(byte 16"):
        encoder.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_saves_encoder_after_source_folder_was_moved(checkpoint: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(copytree(checkpoint, tmp_path / "copy"), "cpu")
    (tmp_path / "copy").rename(tmp_path / "gone")
    encoder.save_pretrained(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(checkpoint)


def test_rejects_saving_bfloat16_weights(checkpoint: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(checkpoint, "cpu")
    encoder.network.bfloat16()
    with pytest.raises(InputError, match=r"The weight \S+ is bfloat16, but a checkpoint stores float32"):
        encoder.save_pretrained(tmp_path / "rounded")
    assert list(tmp_path.iterdir()) == []


def test_rejects_saving_encoder_that_was_not_loaded(checkpoint: Path, tmp_path: Path) -> None:
    loaded = Encoder.from_pretrained(checkpoint, "cpu")
    encoder = Encoder(loaded.network, loaded.preprocessor, loaded.relations, torch.device("cpu"))
    with pytest.raises(InputError, match=r"was not loaded from a checkpoint.*Encoder\.write"):
        encoder.save_pretrained(tmp_path / "out")


def test_keeps_options_of_another_rcml_version(checkpoint: Path, tmp_path: Path) -> None:
    other = RecordedOptions.model_validate({"out": "x", "rate": 1e-5, "since_version_9": [True, None]})
    later = remade(checkpoint, tmp_path / "later", lambda folder: None, other)
    Encoder.from_pretrained(later, "cpu").save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_bytes() == (later / "config.json").read_bytes()
    assert Checkpoint.open(tmp_path / "again").config == other


# Loading.


@pytest.mark.parametrize("source", ["{}/none", "./none/checkpoint", "checkpoint", "~/none", "tests/none"])
def test_does_not_look_up_missing_path_on_the_hub(
    source: str, tmp_path: Path, network_calls: list[object]
) -> None:
    with pytest.raises(ArtifactError, match=r"There is no checkpoint at|is not a valid name on the Hub"):
        Encoder.from_pretrained(source.format(tmp_path))
    assert network_calls == []


def test_never_treats_path_object_as_hub_name(network_calls: list[object]) -> None:
    with pytest.raises(ArtifactError, match=r"There is no checkpoint at .*/ann/shop\. Run `rcml train`"):
        Encoder.from_pretrained(Path("ann/shop"))
    assert network_calls == []


def test_loads_folder_without_network_access(checkpoint: Path, network_calls: list[object]) -> None:
    Encoder.from_pretrained(checkpoint, "cpu").encode_items(TEXTS, PICTURES)
    assert network_calls == []


def test_rejects_revision_of_local_folder(checkpoint: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder and has no revision 'v1'\. Omit the revision\."):
        Encoder.from_pretrained(checkpoint, revision="v1")


def test_reports_missing_weight(checkpoint: Path, tmp_path: Path) -> None:
    bad = reweighed(checkpoint, tmp_path / "bad", lambda weights: weights.pop("attention.key"))
    with pytest.raises(ArtifactError, match=r"does not fit network\.json: attention\.key is missing\."):
        Encoder.from_pretrained(bad)


def test_reports_unexpected_weight(checkpoint: Path, tmp_path: Path) -> None:
    bad = reweighed(
        checkpoint, tmp_path / "bad", lambda weights: weights.update({"attention.extra": torch.zeros(1)})
    )
    with pytest.raises(ArtifactError, match=r"does not fit network\.json: attention\.extra is unexpected\."):
        Encoder.from_pretrained(bad)


def test_reports_weight_of_wrong_shape_with_both_shapes(checkpoint: Path, tmp_path: Path) -> None:
    bad = reweighed(
        checkpoint, tmp_path / "bad", lambda weights: weights.update({"attention.key": torch.eye(33)})
    )
    shapes = r"attention\.key is float32 \[33, 33\] instead of float32 \[32, 32\]\."
    with pytest.raises(ArtifactError, match=shapes):
        Encoder.from_pretrained(bad)


def test_rejects_weight_of_another_precision(checkpoint: Path, tmp_path: Path) -> None:
    bad = reweighed(
        checkpoint,
        tmp_path / "bad",
        lambda weights: weights.update({"attention.key": weights["attention.key"].half()}),
    )
    with pytest.raises(ArtifactError, match=r"attention\.key is float16 \[32, 32\] instead of float32"):
        Encoder.from_pretrained(bad)


def test_lists_first_wrong_weights_and_counts_the_rest(checkpoint: Path, tmp_path: Path) -> None:
    bad = reweighed(checkpoint, tmp_path / "bad", lambda weights: weights.clear())
    count = len(load_file(checkpoint / "model.safetensors"))
    with pytest.raises(ArtifactError, match=rf"attention\.key is missing; .*; and {count - 8} more\."):
        Encoder.from_pretrained(bad)


@pytest.mark.parametrize("name", ["network.json", "model.safetensors"])
def test_rejects_network_of_another_format(name: str, checkpoint: Path, tmp_path: Path) -> None:
    bad = remade(checkpoint, tmp_path / "bad", lambda folder: (folder / name).write_text("{}"))
    with pytest.raises(ArtifactError, match=f"The network in {bad} cannot be read by this version of rcml"):
        Encoder.from_pretrained(bad)


def test_detects_flipped_bits_in_weights(checkpoint: Path, tmp_path: Path) -> None:
    file = copytree(checkpoint, tmp_path / "copy") / "model.safetensors"
    sound = file.read_bytes()
    loaded_by_safetensors = 0
    for bit in random.Random(0).sample(range(8 * len(sound)), 400):
        flipped = bytearray(sound)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        with pytest.raises(ArtifactError, match=r"model\.safetensors was changed after it was written"):
            Encoder.from_pretrained(file.parent)
        with suppress(SafetensorError):
            loaded_by_safetensors += len(load_file(file)) > 0
    assert loaded_by_safetensors > 350  # safetensors has no checksum, so only the manifest detects the change
    file.write_bytes(sound)
    Encoder.from_pretrained(file.parent, "cpu")


# Checkpoint folders edited by users.


def test_edited_model_card_does_not_change_digest(checkpoint: Path, tmp_path: Path) -> None:
    copy = copytree(checkpoint, tmp_path / "copy")
    (copy / "README.md").write_text("# Our best one yet\n")
    Encoder.from_pretrained(copy, "cpu").save_pretrained(tmp_path / "again")
    again = Checkpoint.open(tmp_path / "again")
    assert again.card == "# Our best one yet\n"
    assert again.manifest.digest == Checkpoint.open(checkpoint).manifest.digest


def test_opens_checkpoint_without_model_card(checkpoint: Path, tmp_path: Path) -> None:
    copy = copytree(checkpoint, tmp_path / "copy")
    (copy / "README.md").unlink()
    assert Checkpoint.open(copy).card == ""
    Encoder.from_pretrained(copy, "cpu")


def test_ignores_added_files_and_does_not_save_them(checkpoint: Path, tmp_path: Path) -> None:
    copy = copytree(checkpoint, tmp_path / "copy")
    (copy / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    Encoder.from_pretrained(copy, "cpu").save_pretrained(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(checkpoint)


# No pickle.


def test_checkpoint_has_no_files_that_can_run_code(checkpoint: Path) -> None:
    kinds = {path.suffix for path in checkpoint.rglob("*") if path.is_file()}
    assert kinds <= {".json", ".safetensors", ".md", ".txt"}
    for path in checkpoint.glob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
    assert not [path for path in checkpoint.iterdir() if path.read_bytes()[:2] in (b"PK", b"\x80\x04")]


def test_no_module_of_model_uses_pickle(checkpoint: Path) -> None:
    """Weights that others released as pickles are read by torch's restricted reader, which runs no code."""
    found = []
    for file in Path(model.__path__[0]).rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        restricted = {
            node.func
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and any(
                word.arg == "weights_only"
                and isinstance(word.value, ast.Constant)
                and word.value.value is True
                for word in node.keywords
            )
        }
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(attr="load") if node in restricted:
                    pass
                case ast.Import(names=names) | ast.ImportFrom(names=names) if any(
                    name.name in ("pickle", "joblib") for name in names
                ):
                    found.append(f"{file.name}:{node.lineno}")
                case ast.ImportFrom(module="pickle", names=[ast.alias(name="UnpicklingError")]):
                    pass  # the error of the restricted reader
                case ast.ImportFrom(module="pickle" | "joblib"):
                    found.append(f"{file.name}:{node.lineno}")
                case ast.Attribute(value=ast.Name(id="torch"), attr="load" | "save"):
                    found.append(f"{file.name}:{node.lineno}")
                case ast.keyword(arg="allow_pickle"):
                    found.append(f"{file.name}:{node.lineno}")
    assert found == []
