"""Tests of the initial scale of the logits: those of a token vary over the relations as configured."""

from pathlib import Path

import pytest
import torch

from model.data.prepared_data import Prepared
from model.encoder.read_relation import relation_context
from model.network.inputs import PictureInput, TextInput
from model.network.network import Network
from model.network.processor import Preprocessor
from model.training.batches import Part
from model.training.logit_scale import MEASURED_ITEMS, RELATION_LOGIT_SD, logit_scale_for

from .test_gradients import ALONE, set_up, training_part


def deviations(network: Network, preprocessor: Preprocessor, prepared: Prepared, part: Part) -> list[float]:
    """Return, per modality, the mean over all tokens of the standard deviation over the inter-sample relations."""
    context = relation_context(network, preprocessor, prepared.relations, ALONE.device)
    rows = torch.arange(min(MEASURED_ITEMS, len(part)))
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
    assert sum(found) / 2 == pytest.approx(RELATION_LOGIT_SD, rel=1e-6)


def test_scale_is_one_without_two_relations_to_compare(prepared: Path) -> None:
    network, _, gradients = set_up(prepared, conditioning="centred")
    data, preprocessor = Prepared.open(prepared), gradients.preprocessor
    part = training_part(data, preprocessor)
    assert logit_scale_for(network, preprocessor, data.relations[:2], part, ALONE.device) == 1.0
