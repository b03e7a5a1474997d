"""Tests of the values derived from the data before training: the scale of the logits and the centres of the tokens."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.config import Objective
from model.data.prepared_data import Prepared
from model.encoder.encoder import Encoder
from model.encoder.read_relation import relation_context
from model.network.inputs import PictureInput, TextInput
from model.network.load_backbone import small_backbone
from model.network.network import Network
from model.network.processor import Preprocessor
from model.records import Split
from model.training.batches import Part
from model.training.initial_values import RELATION_LOGIT_SD, SCALE_ITEMS, logit_scale_for, measure_centres
from model.training.train import train
from tests.model.planted import TINY, tiny_training

from .steps.test_gradients import ALONE, set_up, training_part


def deviations(network: Network, preprocessor: Preprocessor, prepared: Prepared, part: Part) -> list[float]:
    """Return, per modality, the mean over all tokens of the standard deviation over the inter-sample relations."""
    context = relation_context(network, preprocessor, prepared.relations, ALONE.device)
    rows = torch.arange(min(SCALE_ITEMS, len(part)))
    assert isinstance(part.text, TextInput)
    raw = part.pictures.take(rows)
    assert isinstance(raw, PictureInput)
    pictures = preprocessor.normalise(raw)
    found = []
    for tokens, view in (
        (network.backbone.text_tokens(part.text.take(rows)), context.text),
        (network.backbone.image_tokens(pictures), context.image),
    ):
        spread = []
        for states, mask in zip(tokens.states, tokens.mask, strict=True):
            for token in states[mask]:
                logits = [
                    float(query @ token) for query in view.queries[1:]
                ]  # without the intra-sample relation
                mean = sum(logits) / len(logits)
                spread.append((sum((logit - mean) ** 2 for logit in logits) / len(logits)) ** 0.5)
        found.append(sum(spread) / len(spread))
    return found


@torch.inference_mode()
def test_scale_gives_logits_the_configured_deviation_over_relations(prepared: Path) -> None:
    network, _, gradients = set_up(prepared, conditioning="centred")
    network.eval()
    network.attention.scale(1 / 3)  # `set_up` starts with 3 times the identity
    data, preprocessor = Prepared.open(prepared), gradients.preprocessor
    part = training_part(data, preprocessor)
    network.set_logit_scale(logit_scale_for(network, preprocessor, data.relations, part, ALONE.device))
    found = deviations(network, preprocessor, data, part)
    assert sum(found) / 2 == pytest.approx(RELATION_LOGIT_SD[False], rel=1e-6)


def test_scale_is_one_without_two_relations_to_compare(prepared: Path) -> None:
    network, _, gradients = set_up(prepared, conditioning="centred")
    data, preprocessor = Prepared.open(prepared), gradients.preprocessor
    part = training_part(data, preprocessor)
    assert logit_scale_for(network, preprocessor, data.relations[:2], part, ALONE.device) == 1.0


@pytest.mark.parametrize("objective", ["rcml", "clip"])
def test_tokens_are_normalised_by_the_mean_token_of_training_items(
    objective: Objective, prepared: Path, tmp_path: Path
) -> None:
    config = tiny_training(prepared, tmp_path / "out", objective=objective, normalise_tokens=True, steps=1)
    train(config)
    encoder = Encoder.from_pretrained(config.out)
    network = encoder.network
    assert network.text_norm is not None
    assert network.image_norm is not None
    torch.manual_seed(config.seed)
    backbone, preprocessor = small_backbone(TINY, encoder.preprocessor).eval(), encoder.preprocessor
    data = Prepared.open(prepared)
    items = [data.items[row] for row in data.rows(Split.TRAIN)]
    texts, pictures = [], []
    with torch.no_grad():
        for item in items:
            texts.append(backbone.text_tokens(preprocessor.tokenize([item.text])).states[0].mean(dim=0))
            room = preprocessor.blank(1)
            with Image.open(data.path / item.picture) as picture:
                preprocessor.decode(picture, room, 0)
            pictures.append(backbone.image_tokens(preprocessor.normalise(room)).states[0].mean(dim=0))
    torch.testing.assert_close(network.text_norm.centre, torch.stack(texts).mean(dim=0))
    torch.testing.assert_close(network.image_norm.centre, torch.stack(pictures).mean(dim=0))


@pytest.mark.parametrize(
    ("text", "warned"), [("red mug. mug", True), ("red mug.\nmug", False), ("red mug", False)]
)
def test_texts_without_separate_fields_are_reported(
    text: str, warned: bool, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, _, gradients = set_up(prepared, normalise_tokens=True)
    data = Prepared.open(prepared)
    items = tuple(replace(item, title="red mug", text=text) for item in data.items)
    encoder = Encoder(network, gradients.preprocessor, data.relations, ALONE.device)
    measure_centres(encoder, replace(data, items=items), ALONE)
    assert ("have no separate fields" in capsys.readouterr().err) == warned


def test_normalised_tokens_serve_free_text_like_trained_relation(prepared: Path, tmp_path: Path) -> None:
    config = tiny_training(
        prepared, tmp_path / "out", conditioning="centred+bias", normalise_tokens=True, steps=4
    )
    train(config)
    encoder = Encoder.from_pretrained(config.out)
    encoding = encoder.read_items(["red mug.\nthings of the kitchen", "hat"], [None, None], tokens=True)()
    assert encoding.tokens is not None
    for position in (1, 2):
        relation = encoder.read_relation(encoder.relations[position].description)
        found = relation.vectors(encoding.tokens.text)
        np.testing.assert_allclose(found, encoding.text[:, position], rtol=0, atol=2e-3)
    encoder.save_pretrained(tmp_path / "copy")
    again = Encoder.from_pretrained(tmp_path / "copy")
    np.testing.assert_array_equal(again.encode_texts(["hat"]), encoder.encode_texts(["hat"]))
