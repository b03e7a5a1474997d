"""Tests of the validation queries and of the weight of the text vector that they choose."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.data.prepared_data import Prepared
from model.embeddings.encoding import Encoding
from model.encoder.encoder import Encoder
from model.evaluation.sampling import Queries
from model.records import Split
from model.training.distributed import ProcessGroup
from model.training.part_inputs import PartInputs
from model.training.validation_queries import Validation, best_text_share, make_validation
from tests.model.planted import tiny_training

ALONE = ProcessGroup(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def validation(
    prepared: Path, checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Validation:
    folder = tmp_path_factory.mktemp("inputs")
    data = Prepared.open(prepared)
    encoder = Encoder.from_pretrained(checkpoints["rcml"], "cpu")
    inputs = PartInputs(tiny_training(prepared, folder / "out"), data, encoder, ALONE, folder)
    return make_validation(data, inputs, np.random.default_rng(0))


def test_every_partner_is_a_validation_item_and_an_edge(prepared: Path, validation: Validation) -> None:
    data = Prepared.open(prepared)
    held_out = [data.items[row].item_id for row in data.rows(Split.VALIDATION)]
    known = {
        item
        for edge in data.edges_across
        if edge.split == Split.VALIDATION
        for item in (edge.item_a, edge.item_b)
    }
    items = [*held_out, *sorted(known - set(held_out))]
    assert len(validation.part) == len(items)
    relations = [relation.relation_id for relation in data.relations]
    edges = {
        (*sorted((edge.item_a, edge.item_b)), edge.relation_id) for edge in (*data.edges, *data.edges_across)
    }
    queries = validation.queries
    asked = zip(queries.item.tolist(), queries.candidates.tolist(), queries.relation.tolist(), strict=True)
    for item, (partner, *others), relation in asked:
        assert partner < len(held_out)
        assert (*sorted((items[item], items[partner])), relations[relation]) in edges
        for other in others:
            assert other < len(held_out)
            if other >= 0:
                assert (*sorted((items[item], items[other])), relations[relation]) not in edges


def test_training_items_ask_for_their_validation_partners(prepared: Path, validation: Validation) -> None:
    held_out = len(Prepared.open(prepared).rows(Split.VALIDATION))
    across = [edge for edge in Prepared.open(prepared).edges_across if edge.split == Split.VALIDATION]
    assert int((validation.queries.item >= held_out).sum()) == len(across) > 0


def encoding(text: list[list[float]], image: list[list[float]]) -> Encoding:
    return Encoding(np.asarray(text, np.float32)[:, None], np.asarray(image, np.float32)[:, None])


def test_best_text_share_is_the_one_with_most_hits() -> None:
    # The query is item 0 and its partner is item 1. Only their texts are alike; the pictures of 2 to 7 are like 0's.
    text = [[1.0, 0.0], [1.0, 0.0], *[[0.0, 1.0]] * 6]
    image = [[1.0, 0.0], [0.0, 1.0], *[[1.0, 0.0]] * 6]
    queries = Queries(np.array([0]), np.array([0]), np.array([[1, 2, 3, 4, 5, 6, 7]]))
    assert best_text_share(encoding(text, image), queries, (0.5, 0.9)) == (0.9, 1.0)
    assert best_text_share(encoding(image, text), queries, (0.1, 0.9)) == (0.1, 1.0)


def test_first_share_is_chosen_among_equals() -> None:
    same = [[1.0, 0.0]] * 8
    queries = Queries(np.array([0]), np.array([0]), np.array([[1, 2, 3, 4, 5, 6, 7]]))
    share, hit = best_text_share(encoding(same, same), queries, (0.5, 0.6, 0.9))
    assert share == 0.5
    assert hit == pytest.approx(5 / 7)
