"""The optimizer and its learning-rate schedule."""

import math

import torch

from model.config import TrainConfig
from model.network.network import Network


def make_optimizer(network: Network, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW in three groups: matrices, decayed; vectors; and the attention's four matrices.

    The four start near the identity. Adam moves every entry of a matrix by about the rate, in one direction
    at first, which adds rate x dim to its largest singular value at each step: at the rate of a network made
    from scratch, that drowns the identity in tens of steps and all vectors fall together.
    """
    attention = list(network.attention.parameters())
    others = [weight for weight in network.backbone.parameters() if weight.requires_grad]
    share = config.attention_rate or (0.1 if config.from_scratch else 1.0)
    groups = [
        {"params": [p for p in others if p.ndim >= 2], "weight_decay": config.weight_decay, "share": 1.0},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0, "share": 1.0},
        {"params": attention, "weight_decay": 0.0, "share": share},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=1.0, betas=(0.9, 0.98), fused=True
    )


def schedule(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then cosine decay to 0; a share of the peak rate."""
    warmup = max(1, round(config.steps * config.warmup_share))
    if step <= warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, config.steps - warmup)))
