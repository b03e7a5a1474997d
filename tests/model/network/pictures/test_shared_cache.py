"""Cache that training and an index build share: no weight and no vector changes."""

from pathlib import Path

import numpy as np
import pytest

from model.artifact import open_artifact
from model.data.prepared_data import Prepared
from model.embeddings.encoder_protocol import PictureFolder
from model.encoder.encoder import Encoder
from model.network.pictures.picture_decoder import PictureDecoder
from model.records import Split
from model.training.train import train
from tests.model.planted import tiny_training


def test_shared_cache_changes_no_weight_and_serves_an_index_build(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "decoded"
    train(tiny_training(prepared, tmp_path / "without", picture_cache=False))
    train(tiny_training(prepared, tmp_path / "with", decoded_pictures=cache))
    without, kept = (open_artifact(tmp_path / name, "checkpoint").files for name in ("without", "with"))
    assert kept["model.safetensors"] == without["model.safetensors"]
    encoder, data = Encoder.from_pretrained(tmp_path / "with", "cpu"), Prepared.open(prepared)
    rows = data.rows(Split.TRAIN)[:3] + data.rows(Split.VALIDATION)[:3]
    items = [data.items[row] for row in rows]
    vectors = []
    for folder in (None, cache):
        if folder is not None:
            monkeypatch.setattr(PictureDecoder, "decode_file", None)  # every picture is in the cache
        pictures = PictureFolder(data.pictures, data.manifest.digest, len(rows), cache=folder)
        with encoder.open_reader(pictures) as reader:
            paths = [data.path / item.picture for item in items]
            vectors.append(reader.read([item.text for item in items], paths, False).encode())
    np.testing.assert_array_equal(vectors[1].image, vectors[0].image)
    np.testing.assert_array_equal(vectors[1].text, vectors[0].text)
