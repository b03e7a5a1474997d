"""The README.md of a checkpoint, in the Hub's model-card format: what it is, how good, how to use it."""

from typing import Any

from .config import TrainConfig
from .prepared import Prepared

WHAT_IT_IS = {
    "rcml": "A relation-conditioned multimodal encoder (RCML, arXiv 2508.17497).",
    "clip": "The `clip` rival of RCML: self-pairs and cross-modal terms only; it ignores relations.",
    "blind": "The `blind` rival of RCML: the same pairs under one constant relation text.",
}


def model_card(config: TrainConfig, metrics: dict[str, Any], prepared: Prepared) -> str:
    """Word the card from what was measured."""
    relations = [relation for relation in prepared.relations if not relation.intra]
    return "\n".join(
        [
            "---",
            "library_name: rcml",
            "tags: [retrieval, multimodal, relation-conditioned]",
            "---",
            "",
            f"# {config.objective} on {len(prepared.items)} items",
            "",
            f"{WHAT_IT_IS[config.objective]} It turns an item's text and picture into one unit vector for each of "
            f"{len(relations)} relations; the cosine of two such vectors says how well the items go together "
            "under that relation.",
            "",
            "## Trained on",
            "",
            f"- {len(prepared.items)} items and {len(prepared.edges)} related pairs (prepared data "
            f"`{prepared.manifest.digest[:12]}`)",
            f"- backbone: `{config.backbone}`, {metrics['parameters']:,} parameters in all",
            f"- {metrics['steps']} steps of {config.batch_size} pairs, seed {config.seed}, on {metrics['device']}",
            "",
            "## Figures",
            "",
            f"On validation items, which training did not see: Hit@5 among 21 candidates "
            f"{metrics['validation_hit_at_5']:.3f}, relation-validity accuracy "
            f"{metrics['validation_validity_accuracy']:.3f}. `rcml evaluate` measures it on the test items.",
            "",
            "## Limits",
            "",
            "It knows the relations it was trained on and items like those it saw. Scores compare candidates "
            "under one relation; they are not probabilities. The validity head is not calibrated beyond its fit.",
            "",
            "## Use",
            "",
            "```python",
            "from PIL import Image",
            "from model.encoder import Encoder",
            "",
            'encoder = Encoder.from_pretrained("checkpoint")',
            'encoding = encoder.encode_items(["red mug"], [Image.open("mug.png")])',
            "encoding.text.shape  # items, relations, dim",
            "```",
            "",
            "## Relations",
            "",
            *(f"- `{relation.relation_id}`: {relation.description}" for relation in relations),
            "",
        ]
    )
