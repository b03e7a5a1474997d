"""The README.md of a checkpoint, in the Hub's model-card format: what it is, how good, how to use it."""

import re
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from model.checkpoint.hub import is_local
from model.checkpoint.training_metrics import TrainingMetrics
from model.config import TrainConfig
from model.data.prepared_data import Prepared

NETWORK_SUMMARIES = {
    "rcml": "A relation-conditioned multimodal encoder (RCML, arXiv 2508.17497).",
    "clip": "The `clip` rival of RCML: self-pairs and cross-modal terms only; it ignores relations.",
    "blind": "The `blind` rival of RCML: the same pairs under one constant relation text.",
}


def model_card(config: TrainConfig, metrics: TrainingMetrics, prepared: Prepared) -> str:
    """Word the card from what was measured. It names no licence: that of the data is for its owner to say."""
    relations = [relation for relation in prepared.relations if not relation.intra]
    return "\n".join(
        [
            "---",
            _metadata(config, metrics, prepared),
            "---",
            "",
            f"# {config.objective} on {len(prepared.items)} items",
            "",
            f"{NETWORK_SUMMARIES[config.objective]} It turns an item's text and picture into one unit vector for each "
            f"of {len(relations)} relations; the cosine of two such vectors says how well the items go together "
            "under that relation.",
            "",
            "## Trained on",
            "",
            f"- {len(prepared.items)} items and {len(prepared.edges)} related pairs (prepared data "
            f"`{prepared.manifest.digest[:12]}`)",
            f"- backbone: {_backbone(config)}, {metrics.parameters:,} parameters in all",
            f"- {metrics.steps} steps of {config.batch_size} pairs, seed {config.seed}, on {metrics.device}",
            "",
            "## Figures",
            "",
            f"On validation items, which training did not see: Hit@5 among 21 candidates "
            f"{metrics.validation_hit_at_5:.3f}, relation-validity accuracy "
            f"{metrics.validation_validity_accuracy:.3f}. `rcml evaluate` measures it on the test items.",
            "",
            "## Limits",
            "",
            "It knows the relations it was trained on and items like those it saw. Scores compare candidates "
            "under one relation; they are not probabilities. What `calibration.json` makes of them is, fitted to "
            "validation items: for claims of which half are true, and for pairs that one of the relations links.",
            "",
            "## Use",
            "",
            "```python",
            "from PIL import Image",
            "from model.encoder.encoder import Encoder",
            "",
            'encoder = Encoder.from_pretrained("path/to/this/folder")  # or "owner/name" on the Hub',
            'encoding = encoder.encode_items(["red mug"], [Image.open("mug.png")])',
            "encoding.text.shape  # items, relations, dim",
            "```",
            "",
            "## Relations",
            "",
            *(f"- {_code(relation.relation_id)}: {_words(relation.description)}" for relation in relations),
            "",
        ]
    )


def _metadata(config: TrainConfig, metrics: TrainingMetrics, prepared: Prepared) -> str:
    """Make the metadata by which the Hub lists and filters the model."""
    figures = {
        "hit_at_5": ("Hit@5 of 21 candidates", metrics.validation_hit_at_5),
        "accuracy": ("Relation-validity accuracy", metrics.validation_validity_accuracy),
    }
    data = ModelCardData(
        library_name="rcml",
        pipeline_tag="feature-extraction",
        tags=["retrieval", "multimodal", "relation-conditioned"],
        base_model=None if _is_ours(config) else config.backbone,
        model_name=f"{config.objective} on {len(prepared.items)} items",
        eval_results=[
            EvalResult(
                task_type="feature-extraction",
                dataset_type="prepared",
                dataset_name=f"{len(prepared.items)} items",
                dataset_split="validation",
                metric_type=kind,
                metric_name=name,
                metric_value=round(value, 4),
            )
            for kind, (name, value) in figures.items()
        ],
    )
    return data.to_yaml()


def _is_ours(config: TrainConfig) -> bool:
    return config.from_scratch or is_local(config.backbone)


def _backbone(config: TrainConfig) -> str:
    """Name the backbone; of a local folder, without its path."""
    return _code(Path(config.backbone).name if _is_ours(config) else config.backbone)


def _code(text: str) -> str:
    """Quote `text` as code in Markdown, on one line and fenced off from backticks of its own."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{' '.join(text.split())}{pad}{fence}"


def _words(text: str) -> str:
    """Escape `text` as plain words in Markdown, on one line: what it says is a shop's, and must not format the card."""
    return re.sub(r"([\\`*_\[\]<>&~|$])", r"\\\1", " ".join(text.split()))
