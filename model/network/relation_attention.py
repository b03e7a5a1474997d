"""Relation-guided attention (eq. 4-6): a relation attends to the tokens of an item and pools them into one vector.

The relation bias is an addition to the paper. The attention selects what of an item counts under a relation. It cannot
express whether the item belongs to the relation at all, because every item gets a unit vector. The bias is a number for
each item and relation, and moves the vector along one learned direction that all items and relations share. Two items
that both belong to a relation are then more similar under it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from model.embeddings.free_text import MIN_LENGTH

from .inputs import Tokens

INITIAL_OFFSET = 0.5
"""Relation bias of every item before training, relative to a unit vector."""

ONE_HOT_SCALE = 1e4
"""Summary bonus that makes the softmax of eq. 5 exactly one-hot in float32, which is CLIP's own pooling."""


@dataclass(frozen=True)
class RelationView:
    """Relations prepared for attention over the tokens of one modality.

    `intra` is True for the intra-sample relation. `queries` is P W_K^T W_Q h_E, scaled. `output` is P W_V^T W_o, the
    same for all relations. `bias` is None without a relation bias. `projection` is P if the relevance of a token does
    not depend on its length in the joint space, otherwise None.
    """

    intra: Bool[Tensor, " relations"]
    queries: Float[Tensor, "relations width"]
    output: Float[Tensor, "width dim"]
    bias: "BiasView | None" = None
    projection: Float[Tensor, "width dim"] | None = None

    def take(self, rows: Int[Tensor, " taken"]) -> "RelationView":
        """Return the view of the relations at `rows`."""
        bias = None if self.bias is None else self.bias.take(rows)
        return replace(self, intra=self.intra[rows], queries=self.queries[rows], bias=bias)

    def differentiable(self) -> tuple[Tensor, ...]:
        """Return all tensors that have a gradient, in a fixed order."""
        projection = () if self.projection is None else (self.projection,)
        return (self.queries, self.output, *projection, *(() if self.bias is None else self.bias.tensors()))

    def with_tensors(self, tensors: Sequence[Tensor]) -> "RelationView":
        """Replace the tensors of `differentiable`."""
        queries, output, *others = tensors
        projection = None if self.projection is None else others.pop(0)
        bias = BiasView(*others) if others else None
        return replace(self, queries=queries, output=output, projection=projection, bias=bias)


@dataclass(frozen=True)
class BiasView:
    """Relation bias, prepared for the tokens of one modality.

    `projection` is P. `keys` is B h_E with h_E at unit length, and `offsets` is the constant part of the bias. Both are
    zero for the intra-sample relation.
    """

    projection: Float[Tensor, "width dim"]
    keys: Float[Tensor, "relations dim"]
    offsets: Float[Tensor, " relations"]
    direction: Float[Tensor, " dim"]

    def take(self, rows: Int[Tensor, " taken"]) -> "BiasView":
        """Return the view of the relations at `rows`."""
        return replace(self, keys=self.keys[rows], offsets=self.offsets[rows])

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all fields, in their order."""
        return self.projection, self.keys, self.offsets, self.direction

    def of(self, tokens: Tokens) -> Float[Tensor, "batch relations"]:
        """Compute the bias b(x, r) of every item and relation from the mean token of the item."""
        mask = tokens.mask.to(tokens.states.dtype)
        total = (mask[:, None] @ tokens.states)[:, 0]
        mean = F.normalize(total @ self.projection, dim=-1)
        return mean @ self.keys.T + self.offsets


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
    # Products instead of a selection by `intra`: the host need not wait until the device knows the number of relations.
    inter = (~intra).to(vectors.dtype)
    count = inter.sum()
    return (vectors * inter[:, None]).sum(dim=0) / count.clamp(min=1) * (count > 1)


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
    `scale` sets how much the attention of different relations differs. Both modalities share the matrices, and the
    matrices have no biases. This gives the paper's 152.33 M parameters with ViT-B/32. `logit_scale` multiplies the
    logits of the relevance (q_E of eq. 6); the paper has 1. With `unit_tokens`, the relevance of a token is divided by
    its length in the joint space. Normalised tokens (`TokenNorm`) need this: those of a short field are so long that
    they would otherwise get nearly all or none of the attention.
    """

    def __init__(
        self,
        dim: int,
        beta: float,
        summary_scale: float,
        logit_scale: float = 1.0,
        biased: bool = False,
        unit_tokens: bool = False,
    ) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.eye(dim))
        self.key = nn.Parameter(torch.eye(dim))
        self.value = nn.Parameter(torch.eye(dim))
        self.output = nn.Parameter(torch.eye(dim))
        self.beta = beta
        self.summary_scale = summary_scale
        self.logit_scale = logit_scale
        self.unit_tokens = unit_tokens
        self.bias = RelationBias(dim) if biased else None

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
        scale = self.logit_scale * (1 - self.beta) / vectors.shape[-1] ** 0.5
        queries = vectors @ self.query.T @ self.key * scale
        return RelationView(
            intra,
            queries @ projection.T,
            projection @ self.value.T @ self.output,
            None if self.bias is None else self.bias.view(vectors, intra, projection),
            projection if self.unit_tokens else None,
        )

    def relevance(self, tokens: Tokens, view: RelationView) -> Float[Tensor, "batch relations tokens"]:
        """Compute (1 - beta) q_E of eq. 5 and 6 for every token, at least in float32."""
        relevance = _exact(view.queries @ tokens.states.mT)
        if view.projection is None:
            return relevance
        lengths = _exact((tokens.states @ view.projection).norm(dim=-1))
        return relevance / lengths.clamp(min=MIN_LENGTH)[:, None]

    def weights(self, tokens: Tokens, view: RelationView) -> Float[Tensor, "batch relations tokens"]:
        """Compute A of eq. 5, at least in float32; padding has weight 0, and each row sums to 1."""
        relevance = self.relevance(tokens, view)
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
        if view.bias is None:
            return vectors
        moved = vectors + _exact(view.bias.of(tokens))[..., None] * _exact(view.bias.direction)
        return F.normalize(moved, dim=-1)


class RelationBias(nn.Module):
    """Relation bias b(x, r) = offset + x B h_E, where x is the unit mean token of an item and h_E has unit length.

    The vector of an item is Norm(z + b(x, r) u) with the unit `direction` u. At the start, B is zero, so every item has
    the bias `offset`. The offset must not be zero: the bias of a query item multiplies the bias of a candidate, so the
    gradient of B would be zero too. A random direction is nearly orthogonal to all initial vectors.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(dim, dim))
        self.offset = nn.Parameter(torch.tensor(INITIAL_OFFSET))
        self.direction = nn.Parameter(torch.randn(dim) / dim**0.5)

    def view(
        self,
        vectors: Float[Tensor, "relations dim"],
        intra: Bool[Tensor, " relations"],
        projection: Float[Tensor, "width dim"],
    ) -> BiasView:
        """Prepare the bias for the relations h_E and for tokens that `projection` maps into the joint space."""
        inter = (~intra).to(vectors.dtype)
        keys = F.normalize(vectors, dim=-1) @ self.matrix.T * inter[:, None]
        return BiasView(projection, keys, self.offset * inter, F.normalize(self.direction, dim=-1))


def _exact(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Cast to at least float32, because bf16 rounding errors distort a softmax and a cosine divided by tau."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
