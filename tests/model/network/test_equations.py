"""Tests of the network against every equation of the paper.

NumPy loops in float64 compute the equations as they are printed, in the notation of the paper: H is (dim x tokens),
W_Q, W_K, W_V, W_o are (dim x dim), i and j are items, and e is a relation. H is the projected output X (width x tokens)
of a tower: H = P^T X. Details that the paper leaves open are resolved as in `network.py` and `loss.py`. Padding has no
weight. N(i) contains the items that share no relation with i in the whole graph. The denominator sums over the positive
and N(i). The loss is a mean over pairs, not a sum. Intra-modal terms skip i = j.
"""

from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import ndarray
from torch import Tensor

from model.network.inputs import PictureInput, Tokens
from model.network.load_backbone import small_backbone
from model.network.network import Network, NetworkConfig
from model.network.processor import Preprocessor
from model.network.relation_attention import ONE_HOT_SCALE, RelationAttention, RelationView
from model.records import INTRA_RELATION
from model.training.loss import PairBatch, contrast, rcml_loss
from tests.model.planted import TINY


@dataclass(frozen=True)
class World:
    """Random items, relations, weights and pairs; the number of tokens varies by item and modality."""

    towers: dict[str, list[ndarray]]
    projection: dict[str, ndarray]
    summary: dict[str, list[int]]
    relations: ndarray
    intra: list[bool]
    weights: dict[str, ndarray]
    beta: float
    bonus: float
    pairs: list[tuple[int, int, int]]
    related: set[tuple[int, int]]

    # Equations of the paper.

    @property
    def tokens(self) -> dict[str, list[ndarray]]:
        """H of every item."""
        return {x: [self.projection[x].T @ states for states in self.towers[x]] for x in "TI"}

    def equation_6(self, x: str, i: int, e: int) -> list[float]:
        """Compute q_E = (W_Q h_E)^T (W_K H) / sqrt(d), token by token."""
        h = self.tokens[x][i]
        query = self.weights["query"] @ self.relations[e]
        return [float(query @ (self.weights["key"] @ h[:, t])) / sqrt(len(h)) for t in range(h.shape[1])]

    def equation_5(self, x: str, i: int, e: int) -> list[float]:
        """Compute A = softmax((1 - beta) q_E + beta B)."""
        q = self.equation_6(x, i, e)
        b = [self.bonus * (self.intra[e] and t == self.summary[x][i]) for t in range(len(q))]
        powers = [exp((1 - self.beta) * q[t] + self.beta * b[t]) for t in range(len(q))]
        return [power / sum(powers) for power in powers]

    def equation_4(self, x: str, i: int, e: int) -> ndarray:
        """Compute z = Norm(A (W_V H)^T W_o)."""
        a = np.array(self.equation_5(x, i, e))
        z = a @ (self.weights["value"] @ self.tokens[x][i]).T @ self.weights["output"]
        return np.asarray(z / sqrt(float(z @ z)))

    def equation_2(
        self, x: str, y: str, temperature: float, pairs: list[tuple[int, int, int]]
    ) -> list[float]:
        """Compute -log of the positive's share among the positive and N(i), for each pair."""
        losses = []
        for i, j, e in pairs:
            z = self.equation_4(x, i, e)
            positive = exp(float(z @ self.equation_4(y, j, e)) / temperature)
            others = [k for k in range(len(self.tokens[y])) if k != i and (i, k) not in self.related]
            negatives = sum(exp(float(z @ self.equation_4(y, k, e)) / temperature) for k in others)
            losses.append(-log(positive / (positive + negatives)))
        return losses

    def equation_1(self, temperature: float, weight: float) -> float:
        """Compute (txt-img + img-txt) / 2 + lambda (txt-txt + img-img)."""
        between = [pair for pair in self.pairs if pair[0] != pair[1]]
        crossed = [self.equation_2(x, y, temperature, self.pairs) for x, y in (("T", "I"), ("I", "T"))]
        within = [self.equation_2(x, x, temperature, between) for x in "TI"] if between else [[0.0]]
        return sum(map(mean, crossed)) / 2 + weight * sum(map(mean, within))

    # Inputs and results of the network.

    def attention(self) -> RelationAttention:
        attention = RelationAttention(len(self.relations[0]), self.beta, self.bonus).double()
        with torch.no_grad():
            for name, matrix in self.weights.items():
                getattr(attention, name).copy_(torch.from_numpy(matrix))
        return attention

    def padded(self, x: str) -> Tokens:
        """Return the tokens of all items in one tensor, with arbitrary values in the padding."""
        longest = max(states.shape[1] for states in self.towers[x])
        shape = (len(self.towers[x]), longest, len(self.projection[x]))
        padded = torch.full(shape, 7.0, dtype=torch.float64)
        mask = torch.zeros(shape[:2], dtype=torch.bool)
        for i, states in enumerate(self.towers[x]):
            padded[i, : states.shape[1]] = torch.from_numpy(states.T)
            mask[i, : states.shape[1]] = True
        return Tokens(padded, mask, torch.tensor(self.summary[x]))

    def view(self, attention: RelationAttention, x: str) -> RelationView:
        relations, projection = torch.from_numpy(self.relations), torch.from_numpy(self.projection[x])
        return attention.view(relations, torch.tensor(self.intra), projection)

    def vectors(self, x: str) -> Tensor:
        attention = self.attention()
        vectors: Tensor = attention(self.padded(x), self.view(attention, x)).detach()
        return vectors

    def batch(self) -> PairBatch:
        count = len(self.towers["T"])
        related = torch.eye(count, dtype=torch.bool)
        for i, k in self.related:
            related[i, k] = True
        inter = sum(i != j for i, j, _ in self.pairs)
        anchor, positive, relation = torch.tensor(self.pairs).T
        return PairBatch(anchor, positive, relation, related, len(self.pairs), inter)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def random_world(seed: int) -> World:
    rng = np.random.default_rng(seed)
    count, dim, relations = rng.integers([3, 2, 2], [7, 6, 5])
    widths = {x: rng.integers(1, 8) for x in "TI"}
    towers = {x: [rng.normal(size=(widths[x], rng.integers(1, 6))) for _ in range(count)] for x in "TI"}
    edges = {
        (int(i), int(j), int(rng.integers(1, relations)))
        for i, j in rng.integers(0, count, size=(2 * count, 2))
        if i != j
    }
    related = {(i, j) for i, j, _ in edges} | {(j, i) for i, j, _ in edges}
    shown = sorted(edges)[: len(edges) // 2 + 1]  # the other edges are in the graph but not in the batch
    selves = [(i, i, 0) for i in range(count) if i == 0 or rng.random() < 0.7]
    return World(
        towers=towers,
        projection={x: rng.normal(size=(widths[x], dim)) for x in "TI"},
        summary={x: [int(rng.integers(states.shape[1])) for states in towers[x]] for x in "TI"},
        relations=rng.normal(size=(relations, dim)),
        intra=[True, *(False for _ in range(relations - 1))],
        weights={name: rng.normal(size=(dim, dim)) for name in ("query", "key", "value", "output")},
        beta=float(rng.uniform()),
        bonus=float(rng.uniform(0, 3)),
        pairs=[*selves, *shown, *((j, i, e) for i, j, e in shown)],
        related=related,
    )


worlds = st.integers(0, 2**32).map(random_world)
few = settings(max_examples=25, deadline=None)


@few
@given(worlds)
def test_attention_weights_match_equations_5_and_6(world: World) -> None:
    attention = world.attention()
    for x in "TI":
        weights = attention.weights(world.padded(x), world.view(attention, x)).detach().numpy()
        for i, e in np.ndindex(weights.shape[:2]):
            expected = world.equation_5(x, i, e)
            np.testing.assert_allclose(weights[i, e, : len(expected)], expected, rtol=1e-9, atol=1e-12)
            assert (weights[i, e, len(expected) :] == 0).all()


@few
@given(worlds)
def test_vectors_match_equation_4(world: World) -> None:
    for x in "TI":
        vectors = world.vectors(x).numpy()
        for i, e in np.ndindex(vectors.shape[:2]):
            np.testing.assert_allclose(vectors[i, e], world.equation_4(x, i, e), rtol=1e-8, atol=1e-10)


@few
@given(worlds, st.floats(0.05, 2.0))
def test_pair_losses_match_equation_2(world: World, temperature: float) -> None:
    for x, y in ("TI", "IT", "TT", "II"):
        losses = contrast(world.vectors(x), world.vectors(y), world.batch(), temperature)
        expected = world.equation_2(x, y, temperature, world.pairs)
        np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-7, atol=1e-9)


@few
@given(worlds, st.floats(0.05, 2.0), st.floats(0.0, 2.0))
def test_batch_loss_matches_equation_1(world: World, temperature: float, weight: float) -> None:
    loss = rcml_loss(world.vectors("T"), world.vectors("I"), world.batch(), temperature, weight)
    assert loss.item() == pytest.approx(world.equation_1(temperature, weight), rel=1e-7, abs=1e-9)


@torch.inference_mode()
def test_beta_one_with_self_pairs_matches_clip_equations_7_and_8(preprocessor: Preprocessor) -> None:
    torch.manual_seed(9)
    backbone = small_backbone(TINY, preprocessor)
    config = NetworkConfig(objective="rcml", beta=1.0, summary_scale=ONE_HOT_SCALE, backbone=backbone.config)
    network = Network(config, backbone).eval()
    text = preprocessor.tokenize(["red mug", "a green kite", "black drum on a white tent", "vase"])
    pixels = torch.randn(4, 3, TINY.image_size, TINY.image_size)
    clip = network.backbone.model(
        input_ids=text.ids, attention_mask=text.mask, pixel_values=pixels, return_loss=True
    )
    context = network.context(preprocessor.tokenize([INTRA_RELATION.description]), [INTRA_RELATION])
    texts = network.text_vectors(text, context)
    images = network.image_vectors(PictureInput(pixels, torch.zeros(4, 2, dtype=torch.int32)), context)
    torch.testing.assert_close(texts[:, 0], clip.text_embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(images[:, 0], clip.image_embeds, rtol=0, atol=1e-5)
    every = torch.arange(4)
    pairs = PairBatch(every, every, torch.zeros_like(every), torch.eye(4, dtype=torch.bool), 4, 0)
    temperature = 1 / network.backbone.model.logit_scale.exp().item()
    loss = rcml_loss(texts, images, pairs, temperature, intra_modal_weight=0.0)
    torch.testing.assert_close(loss, clip.loss, rtol=0, atol=1e-5)
