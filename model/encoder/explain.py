"""Attention weights (A of eq. 5) of words and image patches under one relation, and their entropy."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Float32
from numpy import ndarray
from PIL import Image
from torch import Tensor

from model.embeddings.attention_map import Attention, Box, PatchWeights, TextWeights, weigh_words
from model.embeddings.free_text import FreeTextRelation
from model.errors import UnknownRelationError
from model.network.inputs import Tokens
from model.network.network import Network
from model.network.processor import Preprocessor
from model.network.relation_attention import RelationContext, RelationView
from model.records import Relation

from .read_relation import to_numpy


@torch.inference_mode()
def explain(
    network: Network,
    preprocessor: Preprocessor,
    relations: Sequence[Relation],
    known: RelationContext,
    text: str | None,
    picture: Image.Image | None,
    relation: str | FreeTextRelation,
) -> Attention:
    """Compute the attention of `relation` over the words of `text` and the patches of `picture`.

    `known` contains the trained `relations`, encoded with the network's current weights.

    Raises:
        UnknownRelationError: `relation` is an ID that is not among `relations`.
    """
    ids = tuple(known_relation.relation_id for known_relation in relations)
    found_text = found_image = None
    if text is not None:
        text_view = _single_view(known.text, ids, relation, network.backbone.text_projection)
        found_text = _explain_text(network, preprocessor, text, text_view)
    if picture is not None:
        image_view = _single_view(known.image, ids, relation, network.backbone.image_projection)
        found_image = _explain_picture(network, preprocessor, picture, image_view)
    return Attention(found_text, found_image)


@torch.inference_mode()
def relative_entropy(network: Network, tokens: Tokens, view: RelationView) -> float | None:
    """Compute the entropy of the attention divided by log(number of tokens), as a mean over items and relations.

    The intra-sample relation is left out. None if no item has several tokens, or if there is no other relation.
    """
    tokens = replace(tokens, states=tokens.states.to(view.queries.dtype))
    weights = network.attention.weights(tokens, view.take((~view.intra).nonzero()[:, 0]))
    counts = tokens.mask.sum(dim=1)
    several = counts > 1
    if weights.shape[1] == 0 or not several.any():
        return None
    entropy = torch.special.entr(weights).sum(dim=-1)[several]
    return float((entropy / counts[several, None].log()).mean())


def _explain_text(network: Network, preprocessor: Preprocessor, text: str, view: RelationView) -> TextWeights:
    inputs = preprocessor.tokenize([text]).to(view.queries.device)
    weights = _token_weights(network, network.text_tokens(inputs), view)
    spans = preprocessor.spans(text)
    # A tower may prepend a summary token, which corresponds to no characters of the text.
    leading = len(weights) - len(spans)
    return weigh_words(text, [(0, 0)] * leading + spans, weights.tolist())


def _explain_picture(
    network: Network, preprocessor: Preprocessor, picture: Image.Image, view: RelationView
) -> PatchWeights:
    pixels = preprocessor.blank(1)
    preprocessor.decode(picture, pixels, 0)
    tokens = network.image_tokens(preprocessor.normalise(pixels.to(view.queries.device)))
    weights = _token_weights(network, tokens, view)[tokens.mask[0].cpu().numpy()]
    layout = network.backbone.patch_layout(pixels, len(weights))
    others = len(weights) - layout.rows * layout.columns
    box = preprocessor.shown(*picture.size)
    return PatchWeights(
        weights[others:].reshape(layout.rows, layout.columns),
        float(weights[:others].sum()),
        Box(
            box.left,
            box.top,
            box.left + (box.right - box.left) * layout.width,
            box.top + (box.bottom - box.top) * layout.height,
        ),
    )


def _single_view(
    known: RelationView,
    ids: tuple[str, ...],
    relation: str | FreeTextRelation,
    projection: Callable[[], Float[Tensor, "width dim"]],
) -> RelationView:
    """Return a `RelationView` that contains only `relation`, taken from `known` or built from a free-text relation.

    `known` and `projection` belong to the same modality.
    """
    if isinstance(relation, FreeTextRelation):
        matrix = projection().to(known.queries.dtype)
        queries = (matrix @ torch.from_numpy(relation.query).to(matrix))[None]
        return replace(known, intra=known.intra.new_zeros(1), queries=queries, bias=None)
    if relation not in ids:
        raise UnknownRelationError(relation, ids)
    return known.take(torch.tensor([ids.index(relation)]))


def _token_weights(network: Network, tokens: Tokens, view: RelationView) -> Float32[ndarray, " tokens"]:
    """Compute A of eq. 5 for one item and the only relation of `view`."""
    tokens = replace(tokens, states=tokens.states.to(view.queries.dtype))
    return to_numpy(network.attention.weights(tokens, view)[0, 0])
