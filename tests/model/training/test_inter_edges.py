"""Tests of `--no-inter-edges`: the pairs of different items have no influence on the weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from model.data.prepare_config import PrepareConfig
from model.data.prepared_data import Prepared
from model.records import Split
from model.training.train import train
from tests.model.planted import prepared_of, tiny_training, write_catalogue, write_rows


@pytest.fixture(scope="module")
def fewer(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the catalogue of `prepared`, with the same items in each split but only two thirds of the pairs."""
    folder = tmp_path_factory.mktemp("fewer")
    write_catalogue(folder)
    edges = [json.loads(line) for line in (folder / "edges.jsonl").read_text().splitlines()]
    config = PrepareConfig(
        items=folder / "items.jsonl",
        edges=write_rows(folder / "fewer.jsonl", (edge for row, edge in enumerate(edges) if row % 3)),
        relation_texts=folder / "texts.jsonl",
        out=folder / "prepared",
        text_fields=("title",),
        validation_share=0.33,
        test_share=0.33,
    )
    one, other = Prepared.open(prepared), prepared_of(config)
    assert (one.items, one.splits) == (other.items, other.splits)
    counts = [sum(edge.split == Split.TRAIN for edge in data.edges) for data in (one, other)]
    assert counts[1] < counts[0]
    return config.out


def weights(
    prepared: Path, out: Path, inter_edges: bool, intra_modal_weight: float = 0.5
) -> dict[str, Tensor]:
    """Train two steps, without any choice that depends on the validation items, and return the weights."""
    config = tiny_training(
        prepared,
        out,
        steps=2,
        batch_size=16,
        keep="last",
        text_share=0.5,
        inter_edges=inter_edges,
        intra_modal_weight=intra_modal_weight,
    )
    train(config)
    return load_file(out / "model.safetensors")


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(tensor, other[name]) for name, tensor in one.items()
    )


def test_pairs_of_different_items_change_weights_only_with_inter_edges(
    prepared: Path, fewer: Path, tmp_path: Path
) -> None:
    for inter_edges in (True, False):
        one, other = (
            weights(data, tmp_path / f"{inter_edges}-{place}", inter_edges)
            for place, data in enumerate((prepared, fewer))
        )
        assert equal(one, other) is not inter_edges


def test_intra_modal_terms_vanish_without_inter_edges(prepared: Path, tmp_path: Path) -> None:
    one, other = (weights(prepared, tmp_path / str(weight), False, weight) for weight in (0.0, 0.5))
    assert equal(one, other)
