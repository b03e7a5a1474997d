"""Model card of a checkpoint: a README.md in the Hub's format that describes the network, its quality and its use."""

import re
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from model.checkpoint.hub import is_local
from model.checkpoint.training_metrics import TrainingMetrics
from model.config import TrainConfig
from model.data.prepared_data import Prepared

NETWORK_SUMMARIES = {
    "rcml": "A relation-conditioned multimodal encoder (RCML, arXiv 2508.17497).",
    "clip": "The CLIP baseline of RCML (`clip`), trained on self-pairs with the cross-modal terms only. It ignores "
    "relations.",
    "blind": "The unconditioned ablation of RCML (`blind`), trained on the same pairs with one constant relation text.",
    "siglip": "The network of the CLIP baseline, trained with the pairwise sigmoid loss of SigLIP (`siglip`). It "
    "ignores relations.",
    "unicl": "The network of the CLIP baseline, trained with the loss of UniCL (`unicl`): items with an edge are "
    "positives. It ignores relations.",
    "declip": "The network of the CLIP baseline, trained with the loss of DeCLIP (`declip`): further views and nearest "
    "neighbours. It ignores relations.",
}


def model_card(config: TrainConfig, metrics: TrainingMetrics, prepared: Prepared) -> str:
    """Return the text of the model card, which names no licence because only the owner of the data can choose one."""
    relations = [relation for relation in prepared.relations if not relation.intra]
    return "\n".join(
        [
            "---",
            _metadata(config, metrics, prepared),
            "---",
            "",
            f"# {config.objective} on {len(prepared.items)} items",
            "",
            f"{NETWORK_SUMMARIES[config.objective]} For each of {len(relations)} relations, it encodes an item as "
            "two unit vectors: one of its text and one of its picture. The cosine of the vectors of two items measures "
            "how well the items go together under the relation.",
            "",
            "## Training",
            "",
            f"- {len(prepared.items)} items and {len(prepared.edges)} related pairs (prepared data "
            f"`{prepared.manifest.digest[:12]}`)",
            f"- backbone: {_backbone(config)}, {metrics.parameters:,} parameters in total",
            f"- {metrics.steps} steps of {config.batch_size} pairs, seed {config.seed}, on {metrics.device}",
            "",
            "## Results",
            "",
            f"On validation items, which are not among the training items, Hit@5 among 21 candidates is "
            f"{metrics.validation_hit_at_5:.3f}, and relation-validity accuracy is "
            f"{metrics.validation_validity_accuracy:.3f}. `rcml evaluate` measures the network on the test items.",
            "",
            "## Limitations",
            "",
            "Results are reliable only for the relations of the training data and for items similar to the training "
            "items. Scores compare candidates under one relation; they are not probabilities. `calibration.json` "
            "converts scores into probabilities. It was fitted to validation items. The probability that a relation "
            "holds was fitted to claims, about half of which are true. The probabilities of the relation types were "
            "fitted to related pairs.",
            "",
            "## Usage",
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
    """Return the YAML metadata that the Hub uses to list and filter models."""
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
    """Return the name of the backbone as Markdown code; the path of a local folder is omitted."""
    return _code(Path(config.backbone).name if _is_ours(config) else config.backbone)


def _code(text: str) -> str:
    """Format `text` as a line of Markdown code, in a fence longer than any run of backticks in it."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{' '.join(text.split())}{pad}{fence}"


def _words(text: str) -> str:
    """Escape `text` for Markdown and put it on one line, because text from a shop must not change the formatting."""
    return re.sub(r"([\\`*_\[\]<>&~|$])", r"\\\1", " ".join(text.split()))
