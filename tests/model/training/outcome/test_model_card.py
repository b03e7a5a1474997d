"""Tests of the model card: its metadata for the Hub, and its text in Markdown."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from huggingface_hub import ModelCard, ModelCardData
from markdown_it import MarkdownIt

from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.training_metrics import TrainingMetrics
from model.data.prepared_data import Prepared
from model.records import INTRA_RELATION, Relation
from model.training.outcome.model_card import model_card
from tests.model.planted import tiny_training

METRICS = TrainingMetrics(
    objective="rcml",
    steps=600,
    best_step=500,
    validation_hit_at_5=0.91237,
    validation_validity_accuracy=0.8,
    parameters=151_277_313,
    device="cuda",
    ranks=1,
    seconds=60.5,
    pairs_per_second=800.0,
    data_wait_share=0.01,
    history=(),
)


def card_of(prepared: Path, *relations: Relation, **options: Any) -> ModelCard:
    data = replace(Prepared.open(prepared), relations=(INTRA_RELATION, *relations))
    return ModelCard(model_card(tiny_training(prepared, prepared / "out", **options), METRICS, data))


def data_of(card: ModelCard) -> ModelCardData:
    """Return the metadata of a model card, whose type huggingface_hub declares only as the base class `CardData`."""
    return cast(ModelCardData, card.data)


def test_hub_reads_task_and_results_of_model(checkpoints: dict[str, Path]) -> None:
    data = ModelCard.load(checkpoints["rcml"] / "README.md").data
    metrics = Checkpoint.open(checkpoints["rcml"]).metrics
    assert (data.library_name, data.pipeline_tag) == ("rcml", "feature-extraction")
    assert data.tags == ["retrieval", "multimodal", "relation-conditioned"]
    assert {result.metric_type: result.metric_value for result in data.eval_results} == {
        "hit_at_5": pytest.approx(metrics.validation_hit_at_5, abs=1e-4),
        "accuracy": pytest.approx(metrics.validation_validity_accuracy, abs=1e-4),
    }


def test_card_names_no_licence(prepared: Path) -> None:
    card = card_of(prepared)
    assert data_of(card).license is None
    assert "licen" not in card.content.lower()


def test_backbone_from_hub_is_base_model(prepared: Path) -> None:
    card = card_of(prepared, backbone="openai/clip-vit-base-patch32")
    assert data_of(card).base_model == "openai/clip-vit-base-patch32"
    assert "backbone: `openai/clip-vit-base-patch32`, 151,277,313 parameters in total" in card.text


@pytest.mark.parametrize(
    ("backbone", "shown"), [("small", "`small`"), ("/home/ann/models/our clip", "`our clip`")]
)
def test_local_backbone_is_not_base_model_and_its_path_is_hidden(
    backbone: str, shown: str, prepared: Path
) -> None:
    card = card_of(prepared, backbone=backbone)
    assert data_of(card).base_model is None
    assert f"backbone: {shown}, " in card.text
    assert "/home" not in card.content


def test_card_shows_code_that_loads_checkpoint(prepared: Path) -> None:
    [code] = [token.content for token in MarkdownIt().parse(card_of(prepared).text) if token.type == "fence"]
    compile(code, "README.md", "exec")
    assert 'Encoder.from_pretrained("path/to/this/folder")' in code


@pytest.mark.parametrize(
    "text",
    [
        "Bought by people who buy *Toys* & __Games__, ~~never~~ `code`.",
        "<script>alert(1)</script> <b>bold</b> &amp; $$x^2$$",
        "[click](https://example.com) ![x](y.png) <https://example.com> | a | b |",
        r"Back\slash \* and \\",
        "one\n\n# two\n---\nthree",
        "```\nfence",
        "- a list? 1. or this",
    ],
)
def test_card_shows_descriptions_of_relations_verbatim(text: str, prepared: Path) -> None:
    card = card_of(prepared, Relation("a`b``c\n_d_", text), Relation("next", "Next."))
    tokens = (
        MarkdownIt("commonmark")
        .enable(["table", "strikethrough"])
        .parse(card.text.partition("## Relations")[2])
    )
    lines = [token.children or [] for token in tokens if token.type == "inline"]
    shown = [[child.content for child in line if child.content] for line in lines]
    assert shown == [["a`b``c _d_", ": " + " ".join(text.split())], ["next", ": Next."]]
    assert {child.type for line in lines for child in line} <= {"code_inline", "text", "text_special"}
