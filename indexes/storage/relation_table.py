"""Relations of a generation: those of its checkpoint, followed by those that were added at run time.

    relations.json      all relations, in the order of the vectors, with the number of item pairs of each
    added.safetensors   free-text forms (`FreeTextRelation`) of the added relations, one row each; absent if there are
                        no added relations

The free-text form is sufficient to compute the vector of any item from its tokens, without the network.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray
from safetensors.numpy import load_file, save

from model.embeddings.encoding import EQUAL_SHARE
from model.embeddings.free_text import FreeTextBias, FreeTextRelation
from model.plain_file import decoding, read_json
from model.records import Relation

RELATIONS_FILE = "relations.json"
"""Name of the file within a generation that contains all relations."""

ADDED_RELATIONS_FILE = "added.safetensors"
"""Name of the file that contains the free-text forms of the added relations, if there are any."""


@dataclass(frozen=True, slots=True)
class SamplePair:
    """Example of a pair of items with a relation, and the number of its users who have both items."""

    item_a: str
    item_b: str
    support: int


@dataclass(frozen=True, slots=True)
class IndexedRelation:
    """Relation under which all items have vectors.

    `pairs` is the number of item pairs that the relation had when the index was built, and `paired_items` is the
    number of items in these pairs. `users` is the number of users whose log the relation was derived from; None if the
    pairs were not derived from a log. All three are None for the intra-sample relation and for added relations, which
    have no `sample_pairs` either. `paired_items` and `users` are also None, and `sample_pairs` empty, in a generation
    that an earlier rcml version built. `free_text` is the free-text form of an added relation, and None for any other
    relation.
    """

    relation: Relation
    pairs: int | None
    free_text: FreeTextRelation | None = None
    paired_items: int | None = None
    users: int | None = None
    sample_pairs: tuple[SamplePair, ...] = ()

    @property
    def relation_id(self) -> str:
        """ID of the relation."""
        return self.relation.relation_id


def save_relations(folder: Path, relations: Sequence[IndexedRelation]) -> None:
    """Write the relations of a generation into its `folder`; added relations must come last."""
    records = [
        {
            **asdict(known.relation),
            "pairs": known.pairs,
            "paired_items": known.paired_items,
            "users": known.users,
            "sample_pairs": [[pair.item_a, pair.item_b, pair.support] for pair in known.sample_pairs],
        }
        for known in relations
    ]
    text = json.dumps(records, indent=2, ensure_ascii=False) + "\n"
    (folder / RELATIONS_FILE).write_text(text, encoding="utf-8")
    added = [known.free_text for known in relations if known.free_text is not None]
    assert all(known.free_text is None for known in relations[: len(relations) - len(added)])
    if added:
        # Write the file here, because safetensors discards the reason that the operating system gives for an error.
        (folder / ADDED_RELATIONS_FILE).write_bytes(save(free_text_arrays(added)))


def free_text_arrays(relations: Sequence[FreeTextRelation]) -> dict[str, ndarray]:
    """Return the arrays of free-text `relations` of one network, one row each; `free_text_relation` reads them."""
    arrays = {
        "query": np.stack([one.query for one in relations]),
        "output": np.stack([one.output for one in relations]),
        "nearest": np.array([one.nearest for one in relations], np.int64),
        "vector": np.stack([one.vector for one in relations]),
    }
    shares = [one.text_share for one in relations]
    if any(share != EQUAL_SHARE for share in shares):
        arrays["text_share"] = np.array(shares)
    if any(one.unit_tokens for one in relations):
        arrays["unit_tokens"] = np.array([one.unit_tokens for one in relations])
    biases = [one.bias for one in relations if one.bias is not None]
    if biases:  # all relations come from one network, so either all of them have a bias or none
        arrays["bias_key"] = np.stack([bias.key for bias in biases])
        arrays["bias_offset"] = np.array([bias.offset for bias in biases])
        arrays["bias_direction"] = np.stack([bias.direction for bias in biases])
    return arrays


def load_relations(folder: Path) -> tuple[IndexedRelation, ...]:
    """Read the relations of a generation that `save_relations` wrote.

    Raises:
        ArtifactError: a file is damaged.
    """
    path = folder / RELATIONS_FILE
    with decoding(path):
        records = read_json(path)
        pairs = [record.pop("pairs") for record in records]
        paired_items = [record.pop("paired_items", None) for record in records]
        users = [record.pop("users", None) for record in records]
        samples = [tuple(SamplePair(*pair) for pair in record.pop("sample_pairs", ())) for record in records]
        relations = [Relation(**record) for record in records]
    free_texts: list[FreeTextRelation | None] = [None] * len(relations)
    path = folder / ADDED_RELATIONS_FILE
    with suppress(FileNotFoundError), decoding(path):
        arrays = load_file(path)
        first = len(relations) - len(arrays["query"])
        free_texts[first:] = [
            free_text_relation(arrays, number, relation.description)
            for number, relation in enumerate(relations[first:])
        ]
    return tuple(map(IndexedRelation, relations, pairs, free_texts, paired_items, users, samples))


def free_text_relation(arrays: Mapping[str, ndarray], number: int, description: str) -> FreeTextRelation:
    """Return the relation at row `number` of the arrays that `free_text_arrays` returned."""
    return FreeTextRelation(
        description,
        arrays["query"][number],
        arrays["output"][number],
        tuple(arrays["nearest"][number].tolist()),
        arrays["vector"][number],
        _bias(arrays, number),
        float(arrays["text_share"][number]) if "text_share" in arrays else EQUAL_SHARE,
        bool(arrays["unit_tokens"][number]) if "unit_tokens" in arrays else False,
    )


def _bias(arrays: Mapping[str, ndarray], number: int) -> FreeTextBias | None:
    """Return the relation bias of an added relation; None if the network has none."""
    if "bias_key" not in arrays:
        return None
    return FreeTextBias(
        arrays["bias_key"][number], float(arrays["bias_offset"][number]), arrays["bias_direction"][number]
    )
