"""The relation-conditioned network of the paper (section 3.3): a backbone and relation-guided attention.

Tokens are relation-free, so one backbone pass serves every relation, and the projections are absorbed:
`q . (W_K H) = (W_K^T q) . H` and `A (W_V H)^T W_o = (A H^T) (W_V^T W_o)`; likewise the matrix P that a tower ends
in, as H = P^T X. What depends on the relations alone is computed once for a batch, or once for as long as the
weights last. A further relation costs two products of (tokens x width) per item, and one of (width x dim).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from model.config import Objective, Share
from model.records import INTRA_RELATION, Relation

from .backbones import Backbone
from .inputs import PictureInput, TextInput, Tokens
from .load_backbone import build_backbone

ONE_HOT_SCALE = 1e4
"""A summary bonus so large that the softmax of eq. 5 is exactly one-hot in float32: CLIP's own pooling."""

BLIND_RELATION = Relation("related", "These two items are related.")
"""The constant text that stands for every inter-sample relation in the `blind` rival."""


class NetworkConfig(BaseModel):
    """`network.json`: all that is needed to build the network again, weights aside."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: Objective = Field(description="rcml, or the rival it was trained as")
    beta: Share = Field(description="weight of the summary token against the relation (eq. 5)")
    summary_scale: float = Field(ge=0.0, description="size of the summary bonus B")
    backbone: dict[str, Any] = Field(description="shape of the towers, as in CLIP's config.json")


@dataclass(frozen=True)
class RelationView:
    """Relations as they look at the tokens of one modality.

    `queries` is P W_K^T W_Q h_E, scaled; `output` is P W_V^T W_o, the same for all.
    """

    intra: Bool[Tensor, "relations"]
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
        intra: Bool[Tensor, "relations"],
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


class Network(nn.Module):
    """Backbone and relation-guided attention; its rivals differ only in how they see a relation."""

    def __init__(self, config: NetworkConfig, backbone: Backbone, attention_gain: float = 1.0) -> None:
        super().__init__()
        self._switches = 0
        self.config = config
        self.backbone = backbone
        self.attention = RelationAttention(backbone.dim, config.beta, config.summary_scale, attention_gain)

    @classmethod
    def from_config(cls, config: NetworkConfig) -> Self:
        """Build the network `config` describes, weights still random."""
        return cls(config, build_backbone(config.backbone))

    @property
    def version(self) -> int:
        """Changes whenever the weights may have: what was computed from them is good for one version.

        Torch counts the writes to each tensor, but not those of fused optimizers; hence every switch between
        training and evaluation counts as well.
        """
        return hash((self._switches, *((weight.data_ptr(), weight._version) for weight in self.parameters())))

    def train(self, mode: bool = True) -> Self:
        """Switch to training, or to evaluation, as any module."""
        self._switches += 1
        return super().train(mode)

    def conditioning_relation(self, relation: Relation) -> Relation:
        """Return what the network is conditioned on for `relation`: itself, or what a rival is given in its place."""
        match self.config.objective:
            case "clip":
                return INTRA_RELATION
            case "blind" if not relation.intra:
                return BLIND_RELATION
            case _:
                return relation

    def context(self, texts: TextInput, relations: Sequence[Relation]) -> RelationContext:
        """Encode `relations`, whose tokenized descriptions are `texts`: h_E is the EOT state (eq. 6)."""
        intra = torch.tensor([relation.intra for relation in relations], device=texts.ids.device)
        # Of towers that serve in bf16; the rest of what is made here once is made in the attention's precision.
        summaries, text, image = (
            part.to(self.attention.query.dtype)
            for part in (
                self.backbone.text_tokens(texts).summary_states(),
                self.backbone.text_projection(),
                self.backbone.image_projection(),
            )
        )
        vectors = summaries @ text
        return RelationContext(
            vectors, self.attention.view(vectors, intra, text), self.attention.view(vectors, intra, image)
        )

    def text_vectors(self, text: TextInput, context: RelationContext) -> Float[Tensor, "batch relations dim"]:
        """Compute z_T of every text under every relation, unit length."""
        vectors: Tensor = self.attention(self.backbone.text_tokens(text), context.text)
        return vectors

    def image_vectors(
        self, pictures: PictureInput, context: RelationContext
    ) -> Float[Tensor, "batch relations dim"]:
        """Compute z_I of every picture under every relation, unit length."""
        vectors: Tensor = self.attention(self.backbone.image_tokens(pictures), context.image)
        return vectors
