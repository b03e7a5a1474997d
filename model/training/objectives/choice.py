"""Choice of the loss by the option `--objective`."""

from typing import assert_never

from model.config import TrainConfig

from .batch_loss import BatchLoss
from .declip_loss import QUEUE_SIZE, DeclipLoss, TextQueue
from .relation_loss import RelationLoss
from .siglip_loss import SiglipLoss
from .unicl_loss import UniclLoss


def make_loss(config: TrainConfig, items: int, dim: int) -> BatchLoss:
    """Create the loss for a network whose vectors have `dim` components, trained on `items` items."""
    match config.objective:
        case "rcml" | "blind":
            return RelationLoss(config.temperature, config.intra_modal_weight)
        case "clip":
            return RelationLoss(config.temperature, 0.0)
        case "siglip":
            return SiglipLoss()
        case "unicl":
            return UniclLoss(config.temperature)
        case "declip":
            return DeclipLoss(config.temperature, TextQueue(min(items, QUEUE_SIZE), dim))
        case _:
            assert_never(config.objective)
