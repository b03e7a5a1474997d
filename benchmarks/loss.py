"""Grouped loss compared with the naive loss: `python -m benchmarks.loss [--quick]`.

The benchmark measures all four terms of eq. 1 with lambda 0.5, forward and backward: from the tokens of a batch to the
gradients of the tokens, the relations and the attention. The batch has 512 items of 77 text tokens and 50 image tokens,
and 512 pairs under 10 relations, in fp32. Relation 0 is the intra-sample relation.

The naive loss follows eq. 4-6 as printed. For each of the P pairs, it conditions all B items on the relation of the
pair, which gives B x P vectors of each modality. It absorbs none of W_K, W_V and W_o. It avoids only the repeated work
that any implementation would avoid. Keys and values do not depend on the relation, so they are projected once per item.
One matrix product computes the relevance of all tokens of an item to the relations of all pairs. The vectors of the
anchors are selected from the vectors of the candidates.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from benchmarks.rig.measurement import interleave, milliseconds, on_every_device, peak_memory
from benchmarks.rig.results import conclude, show
from model.network.inputs import Tokens
from model.network.relation_attention import RelationAttention
from model.training.loss import PairBatch, rcml_loss

TEMPERATURE = 0.1
INTRA_MODAL_WEIGHT = 0.5
FOURFOLD = 4
"""Number of items in a larger batch, as a multiple of the normal batch.

The grouped loss should need no more memory on the larger batch than the naive loss needs on the normal batch.
"""


@dataclass(frozen=True)
class Case:
    """Tokens, relations and pairs of a batch, and the relation-guided attention."""

    text: Tokens
    image: Tokens
    vectors: Float[Tensor, "relations dim"]
    intra: Bool[Tensor, " relations"]
    pairs: PairBatch
    attention: RelationAttention

    def leaves(self) -> list[Tensor]:
        """Return the tensors whose gradients are computed."""
        return [self.text.states, self.image.states, self.vectors, *self.attention.parameters()]


@dataclass(frozen=True)
class Size:
    """Dimensions of the batch and the vectors."""

    items: int = 512
    relations: int = 10
    dim: int = 512
    text_tokens: int = 77
    image_tokens: int = 50


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each variant")
    parser.add_argument("--quick", action="store_true", help="use tiny sizes, to check that it runs")
    options = parser.parse_args()
    size = Size(32, 4, 32, 9, 5) if options.quick else Size()
    rounds = 2 if options.quick else options.rounds
    conclude(on_every_device(lambda device: measure(size, rounds, device)))


def measure(size: Size, rounds: int, device: torch.device) -> dict[str, float]:
    """Check that both losses agree, then measure their time and memory on `device`."""
    case = make_case(size, device)
    check(case)
    sides: dict[str, Callable[[], object]] = {
        "grouped": lambda: gradients(grouped, case),
        "naive": lambda: gradients(naive, case),
    }
    peaks = {side: peak_memory(call, device) for side, call in sides.items()}
    timings = interleave(sides, rounds)
    larger = make_case(replace(size, items=FOURFOLD * size.items), device)
    peaks["fourfold"] = peak_memory(lambda: gradients(grouped, larger), device)

    show(
        f"loss, forward and backward, {device.type}: {size.items} pairs, {size.relations} relations",
        ("loss", "ms", "quartiles", "peak MiB"),
        [
            *([side, *milliseconds(timings, side), f"{peaks[side] / 2**20:.1f}"] for side in sides),
            [f"grouped, {len(larger.pairs.related)} pairs", "", "", f"{peaks['fourfold'] / 2**20:.1f}"],
        ],
    )
    return {
        "speedup": timings.ratio("naive", "grouped"),
        "memory_ratio": peaks["naive"] / peaks["grouped"],
    }


def make_case(size: Size, device: torch.device) -> Case:
    """Create a batch of random tokens with texts of random lengths.

    Every item is the anchor of one pair, and the pairs cycle through the relations.
    """
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device).requires_grad_()

    items = size.items
    lengths = torch.randint(2, size.text_tokens + 1, (items,), generator=generator)
    lengths[0] = size.text_tokens
    text = Tokens(
        leaf(items, size.text_tokens, size.dim),
        (torch.arange(size.text_tokens) < lengths[:, None]).to(device),
        (lengths - 1).to(device),
    )
    image = Tokens(
        leaf(items, size.image_tokens, size.dim),
        torch.ones(items, size.image_tokens, dtype=torch.bool, device=device),
        torch.zeros(items, dtype=torch.long, device=device),
    )
    attention = RelationAttention(size.dim, beta=0.6, summary_scale=1.0)
    with torch.no_grad():
        for weight in attention.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=size.dim**-0.5)
    anchor = torch.arange(items)
    relation = anchor % size.relations
    positive = torch.where(relation == 0, anchor, torch.randperm(items, generator=generator))
    related = torch.eye(items, dtype=torch.bool)
    related[anchor, positive] = related[positive, anchor] = True
    pairs = PairBatch(anchor, positive, relation, related, items, int((anchor != positive).sum()))
    return Case(
        text,
        image,
        leaf(size.relations, size.dim),
        (torch.arange(size.relations) == 0).to(device),
        pairs.to(device),
        attention.to(device),
    )


def grouped(case: Case) -> Float[Tensor, ""]:
    """Compute the loss as training does."""
    space = torch.eye(case.vectors.shape[1], device=case.vectors.device)  # the tokens are already projected
    view = case.attention.view(case.vectors, case.intra, space)
    return rcml_loss(
        case.attention(case.text, view),
        case.attention(case.image, view),
        case.pairs,
        TEMPERATURE,
        INTRA_MODAL_WEIGHT,
    )


def naive(case: Case) -> Float[Tensor, ""]:
    """Compute the loss with every item conditioned separately for every pair."""
    pairs = case.pairs
    text, image = naive_vectors(case.text, case), naive_vectors(case.image, case)
    rivals = ~pairs.related[pairs.anchor].scatter(1, pairs.positive[:, None], False)

    def contrast(
        x: Float[Tensor, "items pairs dim"], y: Float[Tensor, "items pairs dim"]
    ) -> Float[Tensor, "pairs"]:
        anchors = x[pairs.anchor, torch.arange(len(pairs.anchor), device=x.device)]
        logits = torch.einsum("pd,ipd->pi", anchors, y) / TEMPERATURE
        return F.cross_entropy(logits.masked_fill(~rivals, -torch.inf), pairs.positive, reduction="none")

    inter = pairs.anchor != pairs.positive
    within = (contrast(text, text) + contrast(image, image))[inter].sum() / pairs.inter_count
    crossed = (contrast(text, image) + contrast(image, text)).sum() / (2 * pairs.count)
    return crossed + INTRA_MODAL_WEIGHT * within


def naive_vectors(tokens: Tokens, case: Case) -> Float[Tensor, "items pairs dim"]:
    """Return z of every item under the relation of every pair, by eq. 4-6 as printed."""
    attention, states = case.attention, tokens.states
    queries = (case.vectors @ attention.query.T)[case.pairs.relation]
    keys, values = states @ attention.key.T, states @ attention.value.T
    relevance = queries @ keys.mT * ((1 - attention.beta) / states.shape[-1] ** 0.5)
    summary = F.one_hot(tokens.summary, states.shape[1])[:, None]
    bonus = summary * case.intra[case.pairs.relation][:, None] * (attention.beta * attention.summary_scale)
    scores = (relevance + bonus).masked_fill(~tokens.mask[:, None], -torch.inf)
    return F.normalize(scores.softmax(dim=-1) @ values @ attention.output, dim=-1)


def gradients(loss_of: Callable[[Case], Tensor], case: Case) -> tuple[Tensor, ...]:
    """Run the forward and backward passes and return the gradients."""
    return torch.autograd.grad(loss_of(case), case.leaves())


def check(case: Case) -> None:
    """Assert that both losses agree within a relative 1e-5, and their gradients within a relative 1e-4."""
    found = []
    for side in (grouped, naive):
        loss = side(case)
        found.append((loss.item(), torch.autograd.grad(loss, case.leaves())))
    (ours, got), (theirs, wanted) = found
    assert abs(ours - theirs) <= 1e-5 * abs(theirs), (ours, theirs)
    for one, other in zip(got, wanted, strict=True):
        error = float((one - other).norm() / other.norm())
        assert error < 1e-4, error


if __name__ == "__main__":
    main()
