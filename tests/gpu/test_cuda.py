"""The encoder gives the same vectors on a CUDA device and on the CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.data.pictures.images import load_picture
from model.data.prepared_data import Prepared
from model.embeddings.encoder_protocol import PictureFolder
from model.encoder.encoder import Encoder
from model.network.inference.cuda_graphs import CudaRecorder
from model.network.pictures import decoding_pool
from model.training.train import train
from tests.model.planted import prepare_catalogue, tiny_training

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is available"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cuda")
    train(
        tiny_training(prepare_catalogue(folder / "catalogue"), folder / "checkpoint", device="cuda", steps=20)
    )
    return folder / "checkpoint"


def test_cuda_and_cpu_give_the_same_vectors(checkpoint: Path) -> None:
    on_cpu, on_cuda = (Encoder.from_pretrained(checkpoint, device) for device in ("cpu", "cuda"))
    texts = ["red mug", "a green kite in a black tent", ""]
    pictures = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "white")]
    expected, found = (encoder.encode_items(texts, pictures) for encoder in (on_cpu, on_cuda))
    np.testing.assert_allclose(found.text, expected.text, atol=1e-3)
    np.testing.assert_allclose(found.image, expected.image, atol=1e-3)
    np.testing.assert_allclose(on_cuda.relation_vectors, on_cpu.relation_vectors, atol=1e-2)


def test_index_build_reads_pictures_by_processes_into_pinned_memory(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decoding_pool, "MIN_FOR_PROCESSES", 1)
    data = Prepared.open(checkpoint.parent / "catalogue" / "prepared")
    encoder = Encoder.from_pretrained(checkpoint, "cuda")
    texts, paths = [item.text for item in data.items[:6]], data.pictures[:6]
    with encoder.open_reader(PictureFolder(data.pictures, "", 6), 6) as reader:
        assert reader.pool.read(paths).pictures.pixels.is_pinned()
        found = [reader.read(texts, paths, False).encode() for _ in range(3 * reader.depth)]
    expected = encoder.encode_items(texts, [load_picture(path) for path in paths])
    for encoding in found:
        np.testing.assert_allclose(encoding.image, expected.image, atol=1e-5)
    assert "could not be pinned" not in capsys.readouterr().err


def test_auto_selects_cuda_and_names_the_device(checkpoint: Path) -> None:
    assert Encoder.from_pretrained(checkpoint, "auto").device == f"cuda ({torch.cuda.get_device_name()})"


def test_learns_the_planted_relations_on_cuda(tmp_path: Path) -> None:
    prepared = prepare_catalogue(tmp_path / "catalogue")
    config = tiny_training(prepared, tmp_path / "out", device="cuda", steps=30, learning_rate=3e-3)
    assert float(train(config).split("Hit@5 ")[1].split(". ")[0]) > 0.75


def test_cuda_graphs_give_the_vectors_of_plain_calls(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = Encoder.from_pretrained(checkpoint, "cuda")
    recorded = Encoder(
        plain.network, plain.preprocessor, plain.relations, torch.device("cuda"), CudaRecorder()
    )
    picture = Image.new("RGB", (40, 30), "red")
    for texts in (["red mug"], ["hat", "a green kite in a black tent", ""], ["lamp"]):
        expected, found = (one.read_items(texts, [picture] * len(texts))() for one in (plain, recorded))
        np.testing.assert_allclose(found.text, expected.text, atol=1e-3)
        np.testing.assert_allclose(found.image, expected.image, atol=1e-3)
    printed = capsys.readouterr()
    assert "CUDA graphs are off" not in printed.out + printed.err
