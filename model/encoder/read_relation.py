"""Relations read by the network: those of a checkpoint together, or a free-text relation by itself."""

from collections.abc import Sequence

import torch
from jaxtyping import Float32
from numpy import ndarray
from torch import Tensor

from model.embeddings.free_text import FreeTextRelation
from model.network.network import Network
from model.network.processor import Preprocessor
from model.network.relation_attention import RelationContext
from model.records import Relation


def relation_context(
    network: Network, preprocessor: Preprocessor, relations: Sequence[Relation], device: torch.device
) -> RelationContext:
    """Encode `relations` (h_E and what follows from it), each as the network is conditioned on it."""
    conditioning = [network.conditioning_relation(relation) for relation in relations]
    texts = preprocessor.tokenize([relation.description for relation in conditioning])
    return network.context(texts.to(device), conditioning)


@torch.inference_mode()
def read_free_text(
    network: Network,
    preprocessor: Preprocessor,
    relations: Sequence[Relation],
    known: RelationContext,
    description: str,
) -> FreeTextRelation:
    """Encode a free-text relation for scoring against item tokens (eq. 4-6).

    `known` are the trained `relations` under the same weights; the result ranks them by how like the free-text
    relation they attend.
    """
    attention = network.attention
    device = known.vectors.device
    asked = relation_context(network, preprocessor, [Relation(description, description)], device)
    vectors = torch.cat([asked.vectors, known.vectors])
    joint = attention.view(
        vectors, vectors.new_zeros(len(vectors), dtype=torch.bool), torch.eye(vectors.shape[1]).to(vectors)
    )
    # Ranked by queries, not by h_E: relations whose queries are equal treat all items alike, however their h_E differ.
    distance = (joint.queries[1:] - joint.queries[0]).norm(dim=-1).tolist()
    others = [position for position, relation in enumerate(relations) if not relation.intra]
    return FreeTextRelation(
        description,
        to_numpy(joint.queries[0]),
        to_numpy(joint.output),
        tuple(sorted(others, key=lambda position: distance[position])),
        to_numpy(asked.vectors[0]),
    )


def to_numpy(values: Tensor) -> Float32[ndarray, "..."]:
    """Copy a tensor into a float32 array on the CPU."""
    array: ndarray = values.float().cpu().numpy()
    return array
