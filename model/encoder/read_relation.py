"""Encoding of relations by the network: all relations of a checkpoint together, or one free-text relation."""

from collections.abc import Sequence

import torch
from jaxtyping import Float32
from numpy import ndarray
from torch import Tensor

from model.embeddings.free_text import FreeTextBias, FreeTextRelation
from model.network.network import Network
from model.network.processor import Preprocessor
from model.network.relation_attention import RelationContext, centred
from model.records import Relation


def relation_context(
    network: Network,
    preprocessor: Preprocessor,
    relations: Sequence[Relation],
    device: torch.device,
    centre: Tensor | None = None,
) -> RelationContext:
    """Encode `relations` into h_E and the values derived from it.

    Each relation is first replaced by the relation that conditions the network (`Network.conditioning_relation`). For
    `centre`, see `Network.context`.
    """
    conditioning = [network.conditioning_relation(relation) for relation in relations]
    texts = preprocessor.tokenize([relation.description for relation in conditioning])
    return network.context(texts.to(device), conditioning, centre)


@torch.inference_mode()
def read_free_text(
    network: Network,
    preprocessor: Preprocessor,
    relations: Sequence[Relation],
    known: RelationContext,
    description: str,
) -> FreeTextRelation:
    """Encode a free-text relation for scoring against item tokens (eq. 4-6).

    `known` contains the trained `relations`, encoded with the same weights. The result lists the trained inter-sample
    relations, starting with the relation whose attention is most similar to that of the free-text relation.
    """
    attention = network.attention
    device = known.vectors.device
    asked = relation_context(
        network, preprocessor, [Relation(description, description)], device, known.centre
    )
    vectors = torch.cat([asked.vectors, known.vectors])
    if known.centre is not None:
        vectors = centred(vectors, known.centre)
    joint = attention.view(
        vectors, vectors.new_zeros(len(vectors), dtype=torch.bool), torch.eye(vectors.shape[1]).to(vectors)
    )
    # Rank by queries and not by h_E: relations with equal queries attend in the same way, even if their h_E differ.
    distance = (joint.queries[1:] - joint.queries[0]).norm(dim=-1).tolist()
    others = [position for position, relation in enumerate(relations) if not relation.intra]
    return FreeTextRelation(
        description,
        to_numpy(joint.queries[0]),
        to_numpy(joint.output),
        tuple(sorted(others, key=lambda position: distance[position])),
        to_numpy(asked.vectors[0]),
        None
        if joint.bias is None
        else FreeTextBias(
            to_numpy(joint.bias.keys[0]), float(joint.bias.offsets[0]), to_numpy(joint.bias.direction)
        ),
        network.config.text_share,
        attention.unit_tokens,
    )


def to_numpy(values: Tensor) -> Float32[ndarray, "..."]:
    """Copy a tensor to a float32 array on the CPU."""
    array: ndarray = values.float().cpu().numpy()
    return array
