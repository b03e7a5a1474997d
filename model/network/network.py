"""The relation-conditioned network of the paper (section 3.3): a backbone and relation-guided attention.

Tokens do not depend on the relation, so one pass through the backbone serves every relation. No projection is applied
to the tokens. W_K is absorbed into the query, because `q . (W_K H) = (W_K^T q) . H`, and W_V into the output matrix,
because `A (W_V H)^T W_o = (A H^T) (W_V^T W_o)`. The final matrix P of a tower is absorbed in the same way, because
H = P^T X. Values that depend only on the relations are computed once per training batch; after training, they are
cached until the weights change. For each item, each further relation costs two matrix-vector products with the tokens
(tokens x width) and one with the output matrix (width x dim). Normalised tokens cost one more matrix product for each
item, whatever the number of relations: their lengths in the joint space (tokens x width x dim).
"""

from collections.abc import Sequence
from typing import Any, Self, assert_never

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from model.config import UNCONDITIONED, Conditioning, Objective, Share
from model.records import INTRA_RELATION, Relation

from .backbones import Backbone
from .inputs import PictureInput, TextInput, Tokens
from .load_backbone import build_backbone
from .relation_attention import RelationAttention, RelationContext, centre_of, centred
from .token_norm import TokenNorm

BLIND_RELATION = Relation("related", "These two items are related.")
"""Constant relation that replaces every inter-sample relation in the unconditioned ablation (`blind`)."""


class NetworkConfig(BaseModel):
    """Content of `network.json`: everything needed to rebuild the network, except the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: Objective = Field(
        description="training objective: rcml, blind (unconditioned ablation), clip (baseline), siglip, unicl or declip"
    )
    beta: Share = Field(description="weight of the summary bonus; relevance has weight 1 - beta (eq. 5)")
    summary_scale: float = Field(ge=0.0, description="size of the summary bonus B")
    conditioning: Conditioning = Field(
        "paper",
        description="paper: relations attend by h_E; centred: by h_E minus the mean h_E of the relations; "
        "centred+bias: also with a relation bias",
    )
    logit_scale: float = Field(
        1.0, gt=0.0, description="factor of the logits of the relevance (q_E of eq. 6)"
    )
    text_share: Share = Field(
        0.5, description="weight of the text vector in the average view; the image vector has the rest"
    )
    normalise_tokens: bool = Field(
        False,
        description="whether tokens are centred, every field of a text counts equally, and the relevance of a token "
        "depends only on its direction",
    )
    backbone: dict[str, Any] = Field(description="config of the towers, as in the model's own config.json")


class Network(nn.Module):
    """Backbone with relation-guided attention.

    The objectives differ here only in the relation that conditions the network.
    """

    def __init__(self, config: NetworkConfig, backbone: Backbone) -> None:
        super().__init__()
        self._switches = 0
        self._weights: tuple[nn.Parameter, ...] | None = None
        self.config = config
        self.backbone = backbone
        self.attention = RelationAttention(
            backbone.dim,
            config.beta,
            config.summary_scale,
            config.logit_scale,
            biased=config.conditioning == "centred+bias",
            unit_tokens=config.normalise_tokens,
        )
        self.text_norm = self.image_norm = None
        if config.normalise_tokens:
            self.text_norm = TokenNorm(len(backbone.text_projection()))
            self.image_norm = TokenNorm(len(backbone.image_projection()))

    @classmethod
    def from_config(cls, config: NetworkConfig) -> Self:
        """Build the network that `config` describes, with random weights."""
        return cls(config, build_backbone(config.backbone))

    @property
    def version(self) -> int:
        """Hash that changes whenever the weights may have changed.

        A value computed from the weights may be cached until the hash changes. Torch counts the writes to each tensor,
        but not those of fused optimizers. Every switch between training and evaluation mode therefore changes the hash
        too. The weights are listed once for each switch, because a walk through all layers takes as long as a tower of
        the small network.
        """
        if self._weights is None:
            self._weights = tuple(self.parameters())
        return hash((self._switches, *((weight.data_ptr(), weight._version) for weight in self._weights)))

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation mode, and count the switch for `version`."""
        self._switches += 1
        self._weights = None
        return super().train(mode)

    def conditioning_relation(self, relation: Relation) -> Relation:
        """Return the relation that conditions the network in place of `relation`, depending on the objective.

        For `rcml`, it is `relation` itself. For `blind`, it is `BLIND_RELATION` if `relation` is an inter-sample
        relation, and otherwise `relation` itself. For all others (`UNCONDITIONED`), it is the intra-sample relation.
        """
        if self.config.objective in UNCONDITIONED:
            return INTRA_RELATION
        return BLIND_RELATION if self.config.objective == "blind" and not relation.intra else relation

    def context(
        self,
        texts: TextInput | Tokens,
        relations: Sequence[Relation],
        centre: Float[Tensor, " dim"] | None = None,
    ) -> RelationContext:
        """Encode `relations`, whose tokenized descriptions are `texts`; h_E is the EOT state (eq. 6).

        With centred conditioning, `centre` is subtracted from h_E. If `centre` is None, it is the mean h_E of
        `relations`, which must then be all relations of the network. With the paper's conditioning, it has no effect.
        """
        tokens = self.text_tokens(texts)
        intra = torch.tensor([relation.intra for relation in relations])
        intra = intra.to(tokens.states.device, non_blocking=True)
        # The towers may run in bf16; everything else here is computed in the precision of the attention.
        summaries, text, image = (
            part.to(self.attention.query.dtype)
            for part in (
                tokens.summary_states(),
                self.backbone.text_projection(),
                self.backbone.image_projection(),
            )
        )
        vectors = summaries @ text
        match self.config.conditioning:
            case "paper":
                centre, conditioned = None, vectors
            case "centred" | "centred+bias":
                centre = centre_of(vectors, intra) if centre is None else centre
                conditioned = centred(vectors, centre)
            case _:
                assert_never(self.config.conditioning)
        return RelationContext(
            vectors,
            centre,
            self.attention.view(conditioned, intra, text),
            self.attention.view(conditioned, intra, image),
        )

    def text_tokens(self, text: TextInput | Tokens) -> Tokens:
        """Encode texts into their tokens; tokens that were encoded before are returned unchanged."""
        if isinstance(text, Tokens):
            return text
        tokens = self.backbone.text_tokens(text)
        return tokens if self.text_norm is None else self.text_norm(tokens, text.fields)

    def image_tokens(self, pictures: PictureInput | Tokens) -> Tokens:
        """Encode pictures into their tokens; tokens that were encoded before are returned unchanged."""
        if isinstance(pictures, Tokens):
            return pictures
        tokens = self.backbone.image_tokens(pictures)
        return tokens if self.image_norm is None else self.image_norm(tokens)

    def text_vectors(
        self, text: TextInput | Tokens, context: RelationContext
    ) -> Float[Tensor, "batch relations dim"]:
        """Compute z_T of every text under every relation, as unit vectors."""
        vectors: Tensor = self.attention(self.text_tokens(text), context.text)
        return vectors

    def image_vectors(
        self, pictures: PictureInput | Tokens, context: RelationContext
    ) -> Float[Tensor, "batch relations dim"]:
        """Compute z_I of every picture under every relation, as unit vectors."""
        vectors: Tensor = self.attention(self.image_tokens(pictures), context.image)
        return vectors

    def set_logit_scale(self, scale: float) -> None:
        """Set the factor of the logits of the relevance."""
        self.config = self.config.model_copy(update={"logit_scale": scale})
        self.attention.logit_scale = scale
        self._switches += 1

    def set_text_share(self, share: float) -> None:
        """Set the weight of the text vector in the average view."""
        self.config = self.config.model_copy(update={"text_share": share})
