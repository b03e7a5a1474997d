"""Presets: the relation descriptions that the paper publishes for its eight datasets (appendix A.2.1 to A.2.8).

A preset replaces the generated descriptions, so that a domain can be trained with the paper's own texts. Each text
states the profile of its cluster: categories of primary, secondary, moderate and minimal interest. The texts are given
to the clusters that fit best in all: the Hungarian assignment (Kuhn 1955) minimises the sum of the distances between
profiles and clusters.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from model.errors import InputError

from .clusters import name_categories

FOLDER = Path(__file__).parent / "presets"

PROFILE_WEIGHTS = {"primary": 8.0, "secondary": 3.0, "moderate": 1.0, "minimal": 0.1}
"""Interactions with a category of each level, relative to each other. The texts say only which interest is larger."""


@dataclass(frozen=True)
class PresetRelation:
    """Relation of a preset; `profile` maps the names of categories to their shares of the interactions.

    `name` is the name for people: the categories of primary and secondary interest.
    """

    relation_id: str
    description: str
    profile: dict[str, float]
    name: str = ""


@dataclass(frozen=True)
class PresetMatch:
    """Relation of a preset for a cluster, and the distance between its profile and the cluster, from 0 to 1."""

    cluster: int
    relation: PresetRelation
    distance: float


def read_preset(name: str) -> list[PresetRelation]:
    """Read the relations of a preset, which is named after its domain, such as "baby"."""
    relations = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["relations"]
    return [
        PresetRelation(
            raw["relation_id"],
            raw["description"],
            _profile(raw),
            name_categories([*raw.get("primary", ()), *raw.get("secondary", ())]),
        )
        for raw in relations
    ]


def _profile(raw: dict[str, list[str]]) -> dict[str, float]:
    weights = {name: weight for level, weight in PROFILE_WEIGHTS.items() for name in raw.get(level, ())}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def match_preset(
    preset: Sequence[PresetRelation],
    counts: Float[ndarray, "clusters categories"],
    names: Sequence[str],
) -> list[PresetMatch]:
    """Match the relations of a preset to clusters, each at most once, in the order of the clusters.

    The distance is the Jensen-Shannon distance (base 2; Endres and Schindelin 2003) between the profile and the
    cluster's shares of the categories. Categories that the preset does not name count together as one more, with the
    profile share 0. Names are compared without case, punctuation and "and".

    Raises:
        InputError: no category of the preset occurs in the data.
    """
    from scipy.optimize import linear_sum_assignment

    own = {_key(name): column for column, name in enumerate(sorted({n for r in preset for n in r.profile}))}
    columns: Int[ndarray, " categories"] = np.array([own.get(_key(name), len(own)) for name in names])
    if not (columns < len(own)).any():
        wanted = sorted({name for relation in preset for name in relation.profile})
        raise InputError(
            f"the preset describes clusters by the categories {', '.join(wanted)}. No item has any of them. Choose the "
            "preset of your domain, or leave out --preset."
        )
    grouped = np.zeros((len(counts), len(own) + 1))
    np.add.at(grouped.T, columns, counts.T)
    profiles = np.zeros((len(preset), len(own) + 1))
    for row, relation in enumerate(preset):
        for name, share in relation.profile.items():
            profiles[row, own[_key(name)]] += share
    distances = _distances(profiles, grouped / grouped.sum(axis=1, keepdims=True))
    rows, clusters = linear_sum_assignment(distances)
    matches = (
        PresetMatch(int(cluster), preset[row], float(distances[row, cluster]))
        for row, cluster in zip(rows, clusters, strict=True)
    )
    return sorted(matches, key=lambda match: match.cluster)


def _distances(
    profiles: Float[ndarray, "relations categories"], shares: Float[ndarray, "clusters categories"]
) -> Float[ndarray, "relations clusters"]:
    """Return the Jensen-Shannon distances; rounding errors of equal distributions are not below 0."""
    from scipy.special import rel_entr

    first, second = profiles[:, None], shares[None]
    middle = (first + second) / 2
    divergence = (rel_entr(first, middle) + rel_entr(second, middle)).sum(axis=2) / (2 * np.log(2))
    distances: Float[ndarray, "relations clusters"] = np.sqrt(np.maximum(divergence, 0))
    return distances


def _key(name: str) -> str:
    return re.sub(r"\band\b|[\W_]", "", name.casefold())
