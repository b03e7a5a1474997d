"""Initial gain of the relation-guided attention, derived from the data.

If the logits of different relations hardly differ at the start, every relation attends to the same tokens, and training
has no signal to separate them. If they differ too much, each relation attends to one random token. The gain is
therefore chosen so that the logits of one token vary over the relations with a given standard deviation.
"""

from collections.abc import Sequence
from math import sqrt

import torch

from model.encoder.read_relation import relation_context
from model.network.inputs import Tokens
from model.network.network import Network
from model.network.processor import Preprocessor
from model.network.relation_attention import RelationView
from model.records import Relation

from .batches import Part

RELATION_LOGIT_SD = 0.75
"""Standard deviation of a token's logits over the relations before the first step, as a mean over both modalities."""

MEASURED_ITEMS = 64

MAX_GAIN = 100.0
"""Maximum gain, in case the relations are so similar that no finite gain would separate them."""


@torch.inference_mode()
def gain_for(
    network: Network,
    preprocessor: Preprocessor,
    relations: Sequence[Relation],
    part: Part,
    device: torch.device,
) -> float:
    """Return the gain for which the logits have `RELATION_LOGIT_SD`.

    W_Q and W_K of `network` must be the identity, and it must be in evaluation mode. Logits grow with the square of the
    gain. The result is 1 if there are fewer than two inter-sample relations.
    """
    if sum(not relation.intra for relation in relations) < 2:
        return 1.0
    context = relation_context(network, preprocessor, relations, device)
    rows = torch.arange(min(MEASURED_ITEMS, len(part)))
    pictures = preprocessor.normalise(part.pictures.take(rows).to(device))
    measured = (
        _logit_sd(network.backbone.text_tokens(part.text.take(rows).to(device)), context.text),
        _logit_sd(network.backbone.image_tokens(pictures), context.image),
    )
    deviation = sum(measured) / len(measured)
    return min(sqrt(RELATION_LOGIT_SD / deviation), MAX_GAIN) if deviation > 0 else MAX_GAIN


def _logit_sd(tokens: Tokens, view: RelationView) -> float:
    """Return the standard deviation of a token's logits over the inter-sample relations, averaged over the tokens."""
    queries = view.queries[~view.intra]
    logits = tokens.states[tokens.mask].to(queries.dtype) @ queries.T
    return float(logits.std(dim=1, correction=0).mean())
