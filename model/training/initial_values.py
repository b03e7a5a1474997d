"""Values of the network that are derived from the data before the first step.

These are the centres of the tokens (`TokenNorm`) and the scale of the logits of the relation-guided attention. If the
logits of different relations hardly differ at the start, every relation attends to the same tokens, and training has no
signal to separate them. If they differ too much, each relation attends to one random token. The scale is therefore
chosen so that the logits of one token vary over the relations with a given standard deviation.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from model.console import say
from model.data.prepared_data import Prepared
from model.encoder.encoder import Encoder
from model.encoder.read_relation import relation_context
from model.network.image_cache import load_pictures
from model.network.inputs import PictureInput, Tokens
from model.network.network import Network
from model.network.processor import Preprocessor
from model.network.relation_attention import RelationView
from model.network.token_norm import TokenNorm
from model.records import Relation, Split

from .batches import Part
from .distributed import ProcessGroup

CENTRE_ITEMS = 256
"""Number of training items, spread evenly over the catalogue, whose mean token is the centre."""

ENCODED_AT_ONCE = 16

RELATION_LOGIT_SD = {True: 0.75, False: 0.3}
"""Standard deviation of a token's logits over the relations before the first step, as a mean over both modalities, by
whether tokens are normalised. Plain tokens differ in length, so some have much larger logits than others anyway."""

SCALE_ITEMS = 64
"""Number of training items whose logits are measured."""

MAX_LOGIT_SCALE = 1e4
"""Maximum scale, in case the relations are so similar that no finite scale would separate them."""


@torch.no_grad()
def measure_centres(encoder: Encoder, prepared: Prepared, group: ProcessGroup) -> None:
    """Set the centre of both modalities to the mean token of the training items, the same on all ranks.

    Every item and every field of its text counts equally. Nothing is done if the network does not normalise tokens.
    """
    network, preprocessor = encoder.network.eval(), encoder.preprocessor
    if network.text_norm is None or network.image_norm is None:
        return
    if group.first:
        rows = prepared.rows(Split.TRAIN)
        items = [prepared.items[row] for row in rows[:: max(1, -(-len(rows) // CENTRE_ITEMS))]]
        text = preprocessor.tokenize([item.text for item in items])
        if not text.fields.any() and any(item.text not in (item.title, item.description) for item in items):
            say(
                f"Warning: the texts in {prepared.path} have no separate fields, because an earlier version of rcml "
                "prepared them. A long description outweighs the title. Run `rcml prepare` again."
            )
        pictures = load_pictures(preprocessor, [prepared.path / item.picture for item in items])
        batches = torch.arange(len(items)).split(ENCODED_AT_ONCE)
        texts = (text.take(some).to(group.device) for some in batches)
        _set_mean(
            network.text_norm,
            (network.text_norm.means(network.backbone.text_tokens(part), part.fields) for part in texts),
        )
        shown = (preprocessor.normalise(pictures.take(some).to(group.device)) for some in batches)
        _set_mean(
            network.image_norm,
            (network.image_norm.means(network.backbone.image_tokens(part)) for part in shown),
        )
    for norm in (network.text_norm, network.image_norm):
        group.copy_from_first(norm.centre)
    network.train(network.training)  # a value that was computed with the old centres is not used again


def _set_mean(norm: TokenNorm, means: Iterable[Float[Tensor, "batch width"]]) -> None:
    norm.centre.copy_(torch.cat(list(means)).mean(dim=0))


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
    rows = torch.arange(min(SCALE_ITEMS, len(part)))
    pictures = part.pictures.take(rows).to(device)
    if isinstance(pictures, PictureInput):
        pictures = preprocessor.normalise(pictures)
    measured = (
        _logit_sd(network, network.text_tokens(part.text.take(rows).to(device)), context.text),
        _logit_sd(network, network.image_tokens(pictures), context.image),
    )
    deviation = sum(measured) / len(measured)
    return (
        min(RELATION_LOGIT_SD[network.config.normalise_tokens] / deviation, MAX_LOGIT_SCALE)
        if deviation > 0
        else MAX_LOGIT_SCALE
    )


def _logit_sd(network: Network, tokens: Tokens, view: RelationView) -> float:
    """Return the standard deviation of a token's logits over the inter-sample relations, averaged over the tokens."""
    tokens = replace(tokens, states=tokens.states.to(view.queries.dtype))
    logits = network.attention.relevance(tokens, view.take((~view.intra).nonzero()[:, 0]))
    return float(logits.std(dim=1, correction=0)[tokens.mask].mean())
