"""Optimizer and learning-rate schedule."""

import math

import torch

from model.config import TrainConfig
from model.network.network import Network

from .objectives.batch_loss import BatchLoss

RELATION_BIAS_SHARE = 3.0
"""Learning rate of the relation bias, relative to that of the attention; its matrix starts at zero."""

LOSS_RATE = 0.1
"""Learning rate of the parameters of a loss, whatever that of the network.

A step of Adam changes a scalar by about its rate. SigLIP's bias starts at -10, which suits batches of 32,000 items, and
has to move by about 5 within the few steps of a small shop.
"""


def make_optimizer(network: Network, loss: BatchLoss, config: TrainConfig) -> torch.optim.Optimizer:
    """Create AdamW with five parameter groups, of which only the first has weight decay.

    The groups are the weight matrices of the towers, their biases and norm weights, the four matrices of the
    relation-guided attention, the relation bias, and the parameters of the loss.

    The matrices of the attention start near the identity. Adam changes every entry of a matrix by about the learning
    rate, at first always in the same direction. Each step therefore adds about rate x dim to the largest singular
    value. At the learning rate of a network trained from scratch, this growth would outweigh the identity within tens
    of steps, and all vectors would collapse into one. Training from scratch therefore uses a lower rate for the
    attention.
    """
    attention = list(network.attention.parameters(recurse=False))
    relation_bias = [] if network.attention.bias is None else list(network.attention.bias.parameters())
    others = [weight for weight in network.backbone.parameters() if weight.requires_grad]
    share = config.attention_rate or (0.1 if config.from_scratch else 1.0)
    groups = [
        {"params": [p for p in others if p.ndim >= 2], "weight_decay": config.weight_decay, "share": 1.0},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0, "share": 1.0},
        {"params": attention, "weight_decay": 0.0, "share": share},
        {"params": relation_bias, "weight_decay": 0.0, "share": RELATION_BIAS_SHARE * share},
        {"params": list(loss.parameters()), "weight_decay": 0.0, "share": LOSS_RATE / peak_rate(config)},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=1.0, betas=(0.9, 0.98), fused=True
    )


def peak_rate(config: TrainConfig) -> float:
    """Return the learning rate at the end of the warm-up."""
    return config.learning_rate or (1e-3 if config.from_scratch else 5e-5)


def schedule(step: int, config: TrainConfig) -> float:
    """Return the learning rate at `step` as a share of the peak rate: linear warm-up, then cosine decay to 0."""
    warmup = max(1, round(config.steps * config.warmup_share))
    if step <= warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, config.steps - warmup)))
