"""Encoder loaded from a checkpoint: vectors and tokens of texts, of pictures in memory and of pictures on disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.data.prepared_data import Prepared
from model.embeddings.encoder_protocol import ItemEncoder
from model.encoder.encoder import Encoder
from model.encoder.read_relation import relation_context
from model.errors import ArtifactError, InputError
from model.network.devices import choose_device
from model.network.image_cache import load_pictures


@pytest.fixture(scope="module")
def encoder(checkpoints: dict[str, Path]) -> Encoder:
    return Encoder.from_pretrained(checkpoints["rcml"], "cpu")


def test_vectors_have_unit_length_under_every_relation(encoder: Encoder) -> None:
    encoding = encoder.encode_items(["red mug", "", "漢字"], [Image.new("RGB", (9, 30), "red")] * 3)
    for vectors in (encoding.text, encoding.image, encoding.average):
        assert vectors.shape == (3, len(encoder.relations), encoder.dim)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1.0, atol=1e-5)


def test_text_has_same_vectors_with_and_without_picture(encoder: Encoder) -> None:
    picture = Image.new("RGB", (32, 32), "red")
    texts = encoder.encode_texts(["red mug", "hat"])
    np.testing.assert_allclose(texts, encoder.encode_items(["red mug", "hat"], [picture] * 2).text, atol=1e-6)


def test_pictures_on_disk_and_in_memory_have_equal_vectors(encoder: Encoder, prepared: Path) -> None:
    data = Prepared.open(prepared)
    items = data.items[:5]
    paths = [data.path / item.picture for item in items]
    pictures = [Image.open(path).convert("RGB") for path in paths]
    texts = [item.text for item in items]
    on_disk, in_memory = encoder.encode_part(texts, paths), encoder.encode_items(texts, pictures)
    np.testing.assert_allclose(on_disk.image, in_memory.image, atol=1e-6)
    np.testing.assert_allclose(on_disk.text, in_memory.text, atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_encodes_picture_of_any_mode(mode: str, encoder: Encoder) -> None:
    grey = Image.new("RGB", (32, 32), "white")
    white = encoder.encode_items(["mug"], [grey]).image
    np.testing.assert_allclose(encoder.encode_items(["mug"], [grey.convert(mode)]).image, white, atol=1e-5)


def test_decoded_pictures_can_be_stored_on_disk(encoder: Encoder, prepared: Path, tmp_path: Path) -> None:
    data = Prepared.open(prepared)
    paths = [data.path / item.picture for item in data.items[:3]]
    in_memory = load_pictures(encoder.preprocessor, paths)
    on_disk = load_pictures(encoder.preprocessor, paths, tmp_path / "pictures.npy")
    assert torch.equal(on_disk.pixels, in_memory.pixels)
    np.testing.assert_array_equal(np.load(tmp_path / "pictures.npy"), in_memory.pixels)
    assert in_memory.pixels[0].flatten(1).float().mean(dim=1).tolist() == [255.0, 0.0, 0.0]  # item 0 is red


def test_encoder_implements_item_encoder_protocol(encoder: Encoder) -> None:
    asked = {name for name in vars(ItemEncoder) if not name.startswith("_")}
    assert {name for name in asked if not hasattr(encoder, name)} == set()
    assert encoder.device == "cpu"
    assert [relation.relation_id for relation in encoder.relations] == ["same-item", "colour", "shape"]


TEXTS = ["red mug", "a hat that is blue", "mug"]


@pytest.mark.parametrize("position", [1, 2])
def test_free_text_relation_matches_trained_relation_of_same_description(
    position: int, encoder: Encoder
) -> None:
    pictures = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "green")]
    encoding = encoder.read_items(TEXTS, pictures, tokens=True)()
    relation = encoder.read_relation(encoder.relations[position].description)
    assert encoding.tokens is not None
    for tokens, vectors in ((encoding.tokens.text, encoding.text), (encoding.tokens.image, encoding.image)):
        assert tokens.states.dtype == np.float16
        np.testing.assert_allclose(relation.vectors(tokens), vectors[:, position], atol=2e-3)
    np.testing.assert_allclose(relation.vector, encoder.relation_vectors[position], atol=1e-5)
    assert relation.nearest[0] == position
    assert sorted(relation.nearest) == [1, 2]


def test_tokens_are_stored_without_padding(encoder: Encoder) -> None:
    together = encoder.text_tokens(TEXTS)
    for row, text in enumerate(TEXTS):
        alone = encoder.text_tokens([text]).states
        own = together.states[together.starts[row] : together.starts[row + 1]]
        assert len(own) == encoder.preprocessor.tokenize([text]).mask.sum()
        np.testing.assert_allclose(own, alone, atol=2e-3)


def test_item_without_picture_has_vectors_of_its_text(encoder: Encoder) -> None:
    red = Image.new("RGB", (32, 32), "red")
    some, every = (encoder.read_items(TEXTS, [red, second, red], tokens=True)() for second in (None, red))
    np.testing.assert_array_equal(some.image[1], 0)
    np.testing.assert_allclose(some.average[1], some.text[1], atol=1e-6)
    np.testing.assert_allclose(some.image[[0, 2]], every.image[[0, 2]], atol=1e-6)
    assert some.tokens is not None
    assert some.tokens.image.starts.tolist() == [0, 5, 5, 10]
    relation = encoder.read_relation("Bought by sailors.")
    np.testing.assert_array_equal(relation.vectors(some.tokens.image)[1], 0)
    without = encoder.read_items(TEXTS, [None] * 3, tokens=True)()
    np.testing.assert_array_equal(without.image, 0)


def test_rejects_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"There is no checkpoint at .*Run `rcml train`"):
        Encoder.from_pretrained(tmp_path / "none")


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is available")
def test_auto_selects_cpu_and_cuda_is_rejected_if_cuda_is_unavailable() -> None:
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(InputError, match=r"this machine has no CUDA device\. Use --device auto"):
        choose_device("cuda")


@pytest.mark.parametrize("fused", [False, True])
def test_relations_are_encoded_once_per_version_of_weights(fused: bool, checkpoints: dict[str, Path]) -> None:
    encoder = Encoder.from_pretrained(checkpoints["rcml"], "cpu")
    network = encoder.network
    before, again = encoder.context(), encoder.context()
    assert again is before
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, fused=fused)
    network.train()
    context = relation_context(network, encoder.preprocessor, encoder.relations, torch.device("cpu"))
    context.vectors.sum().backward()
    optimizer.step()
    network.eval()
    after = encoder.relation_vectors
    assert np.abs(after - before.vectors.numpy()).max() > 0.01
    fresh = Encoder(network, encoder.preprocessor, encoder.relations, torch.device("cpu"))
    np.testing.assert_array_equal(after, fresh.relation_vectors)
