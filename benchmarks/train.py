"""Training step compared with CLIP's: `python -m benchmarks.train [--quick]`.

A step runs the forward pass, the loss, the backward pass, gradient clipping and fused AdamW. The network is ViT-B/32
from its config, with 64 items in fp32 on a CPU, or 512 items in bf16 on CUDA. Our step also encodes the descriptions of
10 relations with gradients, conditions every item on all relations, and computes all terms of the objective. Every item
is the anchor of one pair. The reference has the same towers and inputs, and computes CLIP's cross-entropy on the
features of `CLIPModel`.

On CUDA the benchmark also reports the fraction of the card's bf16 peak that our step reaches. Torch counts the
operations.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.rig.measurement import interleave, milliseconds, on_every_device
from benchmarks.rig.results import conclude, show
from benchmarks.rig.vit_b_32 import Items, make_items, make_network, make_relations, make_texts
from model.network.inputs import TextInput
from model.network.network import Network
from model.records import Relation
from model.training.loss import PairBatch, rcml_loss

TEMPERATURE = 0.1
INTRA_MODAL_WEIGHT = 0.5
RELATIONS = 10

DESCRIPTION_TOKENS = 48
"""Number of tokens per description.

A typical description has slightly fewer: "Co-purchased by people who primarily buy Garden, followed by Home, with
moderate interest in Kitchen, Pets and Office, while showing minimal engagement in Cycling, Camping, Beach, Sports and
Toys."
"""

BF16_PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12}
"""Peak operations per second with dense bf16 matrices, from the data sheets; keyed by a part of the card's name."""


@dataclass(frozen=True)
class Batch:
    """Inputs of both variants."""

    items: Items
    texts: TextInput
    relations: tuple[Relation, ...]
    pairs: PairBatch


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="timed steps of each variant")
    parser.add_argument("--quick", action="store_true", help="use tiny sizes, to check that it runs")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    conclude(on_every_device(partial(measure, options.quick, rounds)))


def measure(quick: bool, rounds: int, device: torch.device) -> dict[str, Any]:
    """Measure on one device and return the figures."""
    cuda = device.type == "cuda"
    networks = {name: make_network(quick).train().to(device) for name in ("rcml", "clip")}
    count = 16 if quick else 512 if cuda else 64
    batch = make_batch(networks["rcml"], count, device)
    losses = {"rcml": relation_loss, "clip": clip_loss}
    sides: dict[str, Callable[[], object]] = {
        name: partial(step, losses[name], network, optimizer(network), batch)
        for name, network in networks.items()
    }
    timings = interleave(sides, rounds)
    show(
        f"training step, {count} items, {device.type}",
        ("", "ms", "quartiles", "relative time"),
        [[side, *milliseconds(timings, side), f"{timings.ratio(side, 'clip'):.3f}"] for side in sides],
    )
    figures: dict[str, Any] = {"step_ratio": timings.ratio("rcml", "clip")}
    if cuda:
        with FlopCounterMode(display=False) as counter:
            sides["rcml"]()
        peak = bf16_peak(torch.cuda.get_device_name(device))
        reached = counter.get_total_flops() / timings.median("rcml")
        print(f"{reached / 1e12:.1f} TFLOP/s")
        figures["fraction_of_bf16_peak"] = None if peak is None else reached / peak
    return figures


def bf16_peak(card: str) -> float | None:
    """Return the bf16 peak of a card by its name, or None if the card is not listed."""
    names = card.replace("-", " ").split()
    return next((peak for name, peak in BF16_PEAKS.items() if name in names), None)


def make_batch(network: Network, count: int, device: torch.device) -> Batch:
    """Create a batch in which every item is the anchor of one pair.

    A tenth of the pairs have the intra-sample relation.
    """
    items = make_items(network, count)
    anchor = torch.arange(count)
    relation = anchor % RELATIONS
    partner = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    positive = torch.where(relation == 0, anchor, partner)
    related = torch.eye(count, dtype=torch.bool)
    related[anchor, positive] = related[positive, anchor] = True
    pairs = PairBatch(anchor, positive, relation, related, count, int((anchor != positive).sum()))
    lengths = torch.full((RELATIONS,), DESCRIPTION_TOKENS)
    return Batch(
        Items(items.text.to(device), items.pictures.to(device)),
        make_texts(lengths, DESCRIPTION_TOKENS).to(device),
        make_relations(RELATIONS),
        pairs.to(device),
    )


def optimizer(network: Network) -> torch.optim.Optimizer:
    """Create an optimizer with a tiny learning rate, which keeps the weights close to their initial values."""
    return torch.optim.AdamW(network.parameters(), lr=1e-6, betas=(0.9, 0.98), weight_decay=0.05, fused=True)


def step(
    loss_of: Callable[[Network, Batch], Tensor],
    network: Network,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
) -> None:
    """Run one training step, from the forward pass to the optimizer."""
    optimizer.zero_grad(set_to_none=True)
    loss_of(network, batch).backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()


def relation_loss(network: Network, batch: Batch) -> Float[Tensor, ""]:
    """Compute the objective with all its terms."""
    with _arithmetic(network):
        context = network.context(batch.texts, batch.relations)
        text = network.text_vectors(batch.items.text, context)
        image = network.image_vectors(batch.items.pictures, context)
    return rcml_loss(text, image, batch.pairs, TEMPERATURE, INTRA_MODAL_WEIGHT)


def clip_loss(network: Network, batch: Batch) -> Float[Tensor, ""]:
    """Compute CLIP's cross-entropy on the features of `CLIPModel`."""
    model, items = network.backbone.model, batch.items
    with _arithmetic(network):
        text = model.get_text_features(items.text.ids, items.text.mask).pooler_output
        image = model.get_image_features(items.pictures.pixels).pooler_output
    logits = F.normalize(text.float(), dim=-1) @ F.normalize(image.float(), dim=-1).T / TEMPERATURE
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def _arithmetic(network: Network) -> torch.autocast:
    device = network.attention.query.device.type
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")


if __name__ == "__main__":
    main()
