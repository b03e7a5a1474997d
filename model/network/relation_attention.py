"""Relation-guided attention (eq. 4-6): a relation attends to the tokens of an item and pools them into one vector."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .inputs import Tokens

ONE_HOT_SCALE = 1e4
"""Summary bonus that makes the softmax of eq. 5 exactly one-hot in float32, which is CLIP's own pooling."""


@dataclass(frozen=True)
class RelationView:
    """Relations prepared for attention over the tokens of one modality.

    `intra` is True for the intra-sample relation. `queries` is P W_K^T W_Q h_E, scaled. `output` is P W_V^T W_o, the
    same for all relations.
    """

    intra: Bool[Tensor, " relations"]
    queries: Float[Tensor, "relations width"]
    output: Float[Tensor, "width dim"]

    def take(self, rows: Int[Tensor, " taken"]) -> "RelationView":
        """Return the view of the relations at `rows`."""
        return replace(self, intra=self.intra[rows], queries=self.queries[rows])


@dataclass(frozen=True)
class RelationContext:
    """Values that depend only on the relations and the weights, so they can be cached until the weights change.

    `vectors` is h_E. `centre` is the vector that is subtracted from every h_E before the attention, or None
    (`centred`).
    """

    vectors: Float[Tensor, "relations dim"]
    centre: Float[Tensor, " dim"] | None
    text: RelationView
    image: RelationView

    def take(self, rows: Int[Tensor, " taken"]) -> "RelationContext":
        """Return the context of the relations at `rows`."""
        return replace(
            self, vectors=self.vectors[rows], text=self.text.take(rows), image=self.image.take(rows)
        )


def centre_of(
    vectors: Float[Tensor, "relations dim"], intra: Bool[Tensor, " relations"]
) -> Float[Tensor, " dim"]:
    """Return the mean h_E of the inter-sample relations; zero if there are fewer than two, which have no contrast."""
    inter = vectors[~intra]
    return inter.mean(dim=0) if len(inter) > 1 else torch.zeros_like(vectors[0])


def centred(
    vectors: Float[Tensor, "relations dim"], centre: Float[Tensor, " dim"]
) -> Float[Tensor, "relations dim"]:
    """Subtract the centre from every h_E and restore its length.

    Descriptions that follow one template have nearly equal h_E (cosines of 0.86 to 0.96). Without their common part,
    the relations attend to different tokens.
    """
    found: Tensor = F.normalize(vectors - centre, dim=-1) * vectors.norm(dim=-1, keepdim=True)
    return found


class RelationAttention(nn.Module):
    """Attention pooling of an item's tokens by their relevance to a relation (eq. 4-6).

    All four matrices start as the identity, so the initial vectors have the geometry of the backbone. Before training,
    `scale` sets how much the attention of different relations differs. Both modalities share the matrices, and there
    are no biases. This gives the paper's 152.33 M parameters with ViT-B/32.
    """

    def __init__(self, dim: int, beta: float, summary_scale: float) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.eye(dim))
        self.key = nn.Parameter(torch.eye(dim))
        self.value = nn.Parameter(torch.eye(dim))
        self.output = nn.Parameter(torch.eye(dim))
        self.beta = beta
        self.summary_scale = summary_scale

    @torch.no_grad()
    def scale(self, gain: float) -> None:
        """Multiply W_Q and W_K by `gain`, so that every logit is multiplied by its square."""
        self.query.mul_(gain)
        self.key.mul_(gain)

    def view(
        self,
        vectors: Float[Tensor, "relations dim"],
        intra: Bool[Tensor, " relations"],
        projection: Float[Tensor, "width dim"],
    ) -> RelationView:
        """Compute the queries of eq. 6 for the relations h_E, with W_K and P absorbed, and the product P W_V^T W_o."""
        scale = (1 - self.beta) / vectors.shape[-1] ** 0.5
        queries = vectors @ self.query.T @ self.key * scale
        return RelationView(intra, queries @ projection.T, projection @ self.value.T @ self.output)

    def weights(self, tokens: Tokens, view: RelationView) -> Float[Tensor, "batch relations tokens"]:
        """Compute A of eq. 5, at least in float32; padding has weight 0, and each row sums to 1."""
        relevance = _exact(view.queries @ tokens.states.mT)
        positions = torch.arange(tokens.states.shape[1], device=tokens.summary.device)
        summary = tokens.summary[:, None, None] == positions
        bonus = (summary & view.intra[:, None]).to(relevance.dtype) * (self.beta * self.summary_scale)
        scores = (relevance + bonus).masked_fill(~tokens.mask[:, None, :], -torch.inf)
        return torch.softmax(scores, dim=-1)

    def forward(self, tokens: Tokens, view: RelationView) -> Float[Tensor, "batch relations dim"]:
        """Compute z of eq. 4 for every item and relation, as unit vectors in at least float32."""
        # Towers may run in bf16. The attention uses the precision of the queries, because rounding would hide small
        # differences between relations.
        tokens = replace(tokens, states=tokens.states.to(view.queries.dtype))
        pooled = self.weights(tokens, view).to(tokens.states.dtype) @ tokens.states
        vectors: Tensor = F.normalize(_exact(pooled @ view.output), dim=-1)
        return vectors


def _exact(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Cast to at least float32, because bf16 rounding errors distort a softmax and a cosine divided by tau."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
