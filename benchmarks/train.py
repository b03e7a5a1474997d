"""Training step compared with CLIP's: `python -m benchmarks.train [--quick] [--compile]`.

A step runs the forward pass, the loss, the backward pass, gradient clipping and fused AdamW. The network is ViT-B/32
from its config, with 64 items in fp32 on a CPU, or 512 items in bf16 on CUDA. Our step also encodes the descriptions of
10 relations with gradients, conditions every item on all relations, and computes all terms of the objective. Every item
is the anchor of one pair. The reference has the same towers, and computes CLIP's cross-entropy on the features of
`CLIPModel`.

Our texts are padded to the longest of the batch and on to a multiple of `TOKEN_BUCKET`, as in training. The reference
`clip` has the same texts, and `clip 77` has them padded to CLIP's context length, as the tokenizer of transformers does
by default. With `--compile`, and always on CUDA, both sides are also measured with their towers compiled.

On CUDA the benchmark also reports the fraction of the card's bf16 peak that our step reaches. Torch counts the
operations of a step, and those that the padding of the texts needs are subtracted.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
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
from model.training import loss as objective
from model.training.batches import take_texts
from model.training.loss import PairBatch
from model.training.steps.compilation import Compilation

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
    parser.add_argument("--compile", action="store_true", help="also compile the towers on a CPU")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    conclude(on_every_device(partial(measure, options.quick, rounds, compiled=options.compile)))


def measure(quick: bool, rounds: int, device: torch.device, compiled: bool = False) -> dict[str, Any]:
    """Measure on one device and return the figures; `step_ratio` compares steps with the same inputs."""
    cuda = device.type == "cuda"
    count = 16 if quick else 512 if cuda else 64
    steps = {side: _Step(side, quick, count, device) for side in LOSSES}
    sides: dict[str, Callable[[], object]] = {side: one.run for side, one in steps.items()}
    if compiled or cuda:
        faster = {
            f"{side}, compiled": _Step(side, quick, count, device, compiled=True) for side in ("rcml", "clip")
        }
        for one in faster.values():
            one.run()  # compiles
        steps |= {side: one for side, one in faster.items() if one.compilation.active}
        sides = {side: one.run for side, one in steps.items()}
    timings = interleave(sides, rounds)
    show(
        f"training step, {count} items, {device.type}",
        ("", "ms", "quartiles", "relative time", "items/s"),
        [
            [
                side,
                *milliseconds(timings, side),
                f"{timings.ratio(side, 'clip'):.3f}",
                f"{count / timings.median(side):,.0f}",
            ]
            for side in sides
        ],
    )
    figures: dict[str, Any] = {
        "step_ratio": timings.ratio("rcml", "clip"),
        "step_ratio_padded": timings.ratio("rcml", "clip 77"),
    }
    fastest = "rcml"
    if "rcml, compiled" in sides and "clip, compiled" in sides:
        fastest = "rcml, compiled"
        figures["step_ratio_compiled"] = timings.ratio("rcml, compiled", "clip, compiled")
        figures["compiled_speedup"] = timings.ratio("rcml", "rcml, compiled")
    if cuda:
        peak = bf16_peak(torch.cuda.get_device_name(device))
        reached = steps["rcml"].operations() / timings.median(fastest)
        print(f"{reached / 1e12:.1f} TFLOP/s")
        figures["fraction_of_bf16_peak"] = None if peak is None else reached / peak
    return figures


class _Step:
    """Training step of one side, with its own network, optimizer and batch."""

    def __init__(
        self, side: str, quick: bool, count: int, device: torch.device, compiled: bool = False
    ) -> None:
        self._network = make_network(quick).train().to(device)
        self._optimizer = optimizer(self._network)
        self._loss = LOSSES[side]
        self._batch = make_batch(self._network, count, device)
        if side != "clip 77":
            self._batch = trimmed(self._batch)
        self.compilation = Compilation(self._network, compiled)

    def run(self) -> None:
        """Take one step."""
        self.compilation.run(lambda: step(self._loss, self._network, self._optimizer, self._batch))

    def operations(self) -> float:
        """Count the floating-point operations of a step, without those for the padding of the texts.

        A text tower needs operations in proportion to its tokens, except in its attention. That of CLIP needs less than
        a hundredth of its operations for 20 tokens, so all of them are scaled by the share of real tokens.
        """
        with FlopCounterMode(display=False) as counter:
            self.run()
        whole = float(counter.get_total_flops())
        texts, padding = (self._batch.items.text, self._batch.texts), 0.0
        for text in texts:
            with FlopCounterMode(display=False) as counter:
                self._network.text_tokens(text).states.sum().backward()
            padding += counter.get_total_flops() * (1 - float(text.mask.float().mean()))
        self._optimizer.zero_grad(set_to_none=True)
        return whole - padding


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


def trimmed(batch: Batch) -> Batch:
    """Return the batch with its texts padded as in training."""
    rows = torch.arange(len(batch.items.text))
    device = batch.items.text.ids.device
    text = take_texts(batch.items.text.to(torch.device("cpu")), rows)
    assert isinstance(text, TextInput)
    return replace(batch, items=replace(batch.items, text=text.to(device)))


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


def rcml_loss(network: Network, batch: Batch) -> Float[Tensor, ""]:
    """Compute the objective with all its terms."""
    with _arithmetic(network):
        context = network.context(batch.texts, batch.relations)
        text = network.text_vectors(batch.items.text, context)
        image = network.image_vectors(batch.items.pictures, context)
    return objective.rcml_loss(text, image, batch.pairs, TEMPERATURE, INTRA_MODAL_WEIGHT)


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


LOSSES: dict[str, Callable[[Network, Batch], Tensor]] = {
    "rcml": rcml_loss,
    "clip": clip_loss,
    "clip 77": clip_loss,
}


if __name__ == "__main__":
    main()
