"""Tests of sentence-embedding models on a tiny BERT in the format of sentence-transformers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from model.errors import InputError
from model.records import Relation
from model.systems.families import open_system
from model.systems.system import Passes
from tests.model.network.families import LAYERS, WORDS

from .releases import draw_picture, unit

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
RELATIONS = (Relation("colour", "the same colour"), Relation("kind", "of the same kind"))
TEXTS = ("red mug", "two blue kite items")


def write_sentence_model(folder: Path, pooling: dict[str, object], *steps: str) -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=16, **LAYERS)
    model: BertModel = BertModel(config).eval()
    model.save_pretrained(folder)
    BertTokenizer(vocab={word: row for row, word in enumerate(VOCABULARY)}).save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    names = [f"sentence_transformers.models.{step}" for step in ("Transformer", "Pooling", *steps)]
    (folder / "modules.json").write_text(json.dumps([{"type": name} for name in names]))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12}))
    return model


def states(model: BertModel, text: str) -> torch.Tensor:
    """Return the states of one text, which is short enough to need neither padding nor truncation."""
    ids = [VOCABULARY.index(word) for word in ("[CLS]", *text.split(), "[SEP]")]
    found: torch.Tensor = model(torch.tensor([ids])).last_hidden_state[0]
    return found


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        (
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
            lambda found: found.mean(dim=0),
        ),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, lambda found: found[0]),
        ({"pooling_mode": "lasttoken"}, lambda found: found[-1]),
    ],
)
def test_vectors_are_the_pooled_states(pooling: dict[str, object], expected: object, tmp_path: Path) -> None:
    assert callable(expected)
    model = write_sentence_model(tmp_path, pooling, "Normalize")
    found = open_system(f"sentence:{tmp_path}", "cpu").encode(TEXTS, [None, None], RELATIONS)
    for item, text in enumerate(TEXTS):
        for place, relation in enumerate(RELATIONS):
            vector = unit(expected(states(model, f"{relation.description} {text}")))
            np.testing.assert_allclose(found.text[item, place], vector, atol=1e-5)


def test_pictures_are_not_read(tmp_path: Path) -> None:
    write_sentence_model(tmp_path, {"pooling_mode": "mean"})
    system = open_system(f"sentence:{tmp_path}", "cpu")
    picture = draw_picture(tmp_path / "picture.png", 1)
    assert not system.encode(["mug"], [picture], RELATIONS).image.any()
    assert system.passes(100, 10) == Passes(text=1000, image=0)


def test_relation_survives_a_long_text(tmp_path: Path) -> None:
    model = write_sentence_model(tmp_path, {"pooling_mode": "mean"})
    found = open_system(f"sentence:{tmp_path}", "cpu").encode(["red mug " * 9], [None], RELATIONS)
    kept = unit(states(model, "the same colour" + " red mug" * 3 + " red").mean(dim=0))
    np.testing.assert_allclose(found.text[0, 0], kept, atol=1e-5)


@pytest.mark.parametrize(
    ("pooling", "step", "named"),
    [
        ({"pooling_mode": "mean"}, "Dense", "Dense"),
        ({"pooling_mode_max_tokens": True}, "Normalize", "max_tokens"),
    ],
)
def test_other_steps_and_poolings_are_rejected(
    pooling: dict[str, object], step: str, named: str, tmp_path: Path
) -> None:
    write_sentence_model(tmp_path, pooling, step)
    with pytest.raises(InputError, match=named):
        open_system(f"sentence:{tmp_path}", "cpu")


def test_incomplete_folder_is_rejected(tmp_path: Path) -> None:
    write_sentence_model(tmp_path, {"pooling_mode": "mean"})
    (tmp_path / "modules.json").unlink()
    with pytest.raises(InputError, match="No sentence-embedding model could be loaded"):
        open_system(f"sentence:{tmp_path}", "cpu")
