"""The encoder gives the same vectors on a CUDA device and on the CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.encoder.encoder import Encoder
from model.network.cuda_graphs import CudaRecorder
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


def test_auto_selects_cuda_and_names_the_device(checkpoint: Path) -> None:
    assert Encoder.from_pretrained(checkpoint, "auto").device == f"cuda ({torch.cuda.get_device_name()})"


def test_learns_the_planted_relations_on_cuda(tmp_path: Path) -> None:
    prepared = prepare_catalogue(tmp_path / "catalogue")
    config = tiny_training(prepared, tmp_path / "out", device="cuda", steps=30, learning_rate=3e-3)
    assert float(train(config).split("Hit@5 ")[1].split(";")[0]) > 0.75


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
