"""On a CUDA device the encoder gives what it gives on the CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.encoder.encoder import Encoder
from model.training.train import train
from tests.model.planted import prepare_catalogue, tiny_training

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
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


def test_auto_takes_cuda_and_says_which(checkpoint: Path) -> None:
    assert Encoder.from_pretrained(checkpoint, "auto").device == f"cuda ({torch.cuda.get_device_name()})"


def test_a_planted_truth_is_learnt_on_cuda_too(tmp_path: Path) -> None:
    prepared = prepare_catalogue(tmp_path / "catalogue")
    config = tiny_training(prepared, tmp_path / "out", device="cuda", steps=30, learning_rate=3e-3)
    assert float(train(config).split("Hit@5 ")[1].split(";")[0]) > 0.75
