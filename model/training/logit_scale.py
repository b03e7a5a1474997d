"""Scale of the logits of the relation-guided attention, derived from the data before the first step.

If the logits of different relations hardly differ at the start, every relation attends to the same tokens, and training
has no signal to separate them. If they differ too much, each relation attends to one random token. The scale is
therefore chosen so that the logits of one token vary over the relations with a given standard deviation.
"""

from collections.abc import Sequence

import torch

from model.encoder.read_relation import relation_context
from model.network.inputs import PictureInput, Tokens
from model.network.network import Network
from model.network.processor import Preprocessor
from model.network.relation_attention import RelationView
from model.records import Relation

from .batches import Part

RELATION_LOGIT_SD = 0.3
"""Standard deviation of a token's logits over the relations before the first step, as a mean over both modalities."""

MEASURED_ITEMS = 64

MAX_LOGIT_SCALE = 1e4
"""Maximum scale, in case the relations are so similar that no finite scale would separate them."""


@torch.inference_mode()
def logit_scale_for(
    network: Network,
    preprocessor: Preprocessor,
    relations: Sequence[Relation],
    part: Part,
    device: torch.device,
) -> float:
    """Return the scale for which the logits have `RELATION_LOGIT_SD`.

    `network` must have the scale 1 and be in evaluation mode. The result is 1 if there are fewer than two inter-sample
    relations.
    """
    if sum(not relation.intra for relation in relations) < 2:
        return 1.0
    context = relation_context(network, preprocessor, relations, device)
    rows = torch.arange(min(MEASURED_ITEMS, len(part)))
    pictures = part.pictures.take(rows).to(device)
    if isinstance(pictures, PictureInput):
        pictures = preprocessor.normalise(pictures)
    measured = (
        _logit_sd(network.text_tokens(part.text.take(rows).to(device)), context.text),
        _logit_sd(network.image_tokens(pictures), context.image),
    )
    deviation = sum(measured) / len(measured)
    return min(RELATION_LOGIT_SD / deviation, MAX_LOGIT_SCALE) if deviation > 0 else MAX_LOGIT_SCALE


def _logit_sd(tokens: Tokens, view: RelationView) -> float:
    """Return the standard deviation of a token's logits over the inter-sample relations, averaged over the tokens."""
    queries = view.queries[~view.intra]
    logits = tokens.states[tokens.mask].to(queries.dtype) @ queries.T
    return float(logits.std(dim=1, correction=0).mean())
