"""The relation-conditioned network of the paper (section 3.3): a backbone and relation-guided attention.

Tokens are relation-free, so one backbone pass serves every relation, and the projections are absorbed:
`q . (W_K H) = (W_K^T q) . H` and `A (W_V H)^T W_o = (A H^T) (W_V^T W_o)`; likewise the matrix P that a tower ends
in, as H = P^T X. What depends on the relations alone is computed once for a batch, or once for as long as the
weights last. A further relation costs two products of (tokens x width) per item, and one of (width x dim).
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from model.config import Objective, Share
from model.records import INTRA_RELATION, Relation

from .backbones import Backbone
from .inputs import PictureInput, TextInput
from .load_backbone import build_backbone
from .relation_attention import RelationAttention, RelationContext

BLIND_RELATION = Relation("related", "These two items are related.")
"""The constant text that stands for every inter-sample relation in the `blind` rival."""


class NetworkConfig(BaseModel):
    """`network.json`: all that is needed to build the network again, weights aside."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: Objective = Field(description="rcml, or the rival it was trained as")
    beta: Share = Field(description="weight of the summary token against the relation (eq. 5)")
    summary_scale: float = Field(ge=0.0, description="size of the summary bonus B")
    backbone: dict[str, Any] = Field(description="shape of the towers, as in CLIP's config.json")


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
