"""The relation-guided attention (eq. 4-6): a relation looks at the tokens of an item, and they are pooled by it."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .inputs import Tokens

ONE_HOT_SCALE = 1e4
"""A summary bonus so large that the softmax of eq. 5 is exactly one-hot in float32: CLIP's own pooling."""


@dataclass(frozen=True)
class RelationView:
    """Relations as they look at the tokens of one modality.

    `queries` is P W_K^T W_Q h_E, scaled; `output` is P W_V^T W_o, the same for all.
    """

    intra: Bool[Tensor, " relations"]
    queries: Float[Tensor, "relations width"]
    output: Float[Tensor, "width dim"]


@dataclass(frozen=True)
class RelationContext:
    """All that depends on the relations and the weights alone: worth keeping while the weights stay as they are.

    `vectors` is h_E.
    """

    vectors: Float[Tensor, "relations dim"]
    text: RelationView
    image: RelationView


class RelationAttention(nn.Module):
    """Eq. 4-6: pool the tokens of an item by their relevance to a relation.

    W_V and W_o start as the identity, W_Q and W_K as `gain` times it, so that step 0 has the backbone's own
    geometry and the gain decides how far relations differ in what they look at from the start.
    Shared by both modalities, no biases: the paper's 152.33 M parameters with ViT-B/32.
    """

    def __init__(self, dim: int, beta: float, summary_scale: float, gain: float = 1.0) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.eye(dim) * gain)
        self.key = nn.Parameter(torch.eye(dim) * gain)
        self.value = nn.Parameter(torch.eye(dim))
        self.output = nn.Parameter(torch.eye(dim))
        self.beta = beta
        self.summary_scale = summary_scale

    def view(
        self,
        vectors: Float[Tensor, "relations dim"],
        intra: Bool[Tensor, " relations"],
        projection: Float[Tensor, "width dim"],
    ) -> RelationView:
        """Compute Q of eq. 6 for the relations h_E, with W_K and P absorbed; and P, W_V and W_o in one."""
        scale = (1 - self.beta) / vectors.shape[-1] ** 0.5
        queries = vectors @ self.query.T @ self.key * scale
        return RelationView(intra, queries @ projection.T, projection @ self.value.T @ self.output)

    def weights(self, tokens: Tokens, view: RelationView) -> Float[Tensor, "batch relations tokens"]:
        """Compute A of eq. 5, in float32 at least; padding has weight 0, and each row sums to 1."""
        relevance = _exact(view.queries @ tokens.states.mT)
        positions = torch.arange(tokens.states.shape[1], device=tokens.summary.device)
        summary = tokens.summary[:, None, None] == positions
        bonus = (summary & view.intra[:, None]).to(relevance.dtype) * (self.beta * self.summary_scale)
        scores = (relevance + bonus).masked_fill(~tokens.mask[:, None, :], -torch.inf)
        return torch.softmax(scores, dim=-1)

    def forward(self, tokens: Tokens, view: RelationView) -> Float[Tensor, "batch relations dim"]:
        """Compute z of eq. 4 for every item and relation: unit length, float32 at least."""
        # Towers may serve in bf16; what tells relations apart is worked out in the precision of their queries.
        tokens = replace(tokens, states=tokens.states.to(view.queries.dtype))
        pooled = self.weights(tokens, view).to(tokens.states.dtype) @ tokens.states
        vectors: Tensor = F.normalize(_exact(pooled @ view.output), dim=-1)
        return vectors


def _exact(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Cast to float32 at least: what bf16 rounds off would be felt in a softmax, or in a cosine over tau."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
