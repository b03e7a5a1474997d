"""IDs and texts of the relations of a log: generated, from a preset, or edited by hand.

A person may edit the texts of a former run and give its `relations.json`, or any table of relation and description,
as `--relation-texts`. The texts belong to the generated IDs, which the same log and options give again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from jaxtyping import Float, Int
from numpy import ndarray

from model.config import Behaviour
from model.errors import InputError
from model.records import Relation

from .clusters import InteractionLog, category_totals, describe_clusters
from .presets import match_preset, read_preset


def name_clusters(
    log: InteractionLog,
    membership: Int[ndarray, " users"],
    behaviour: Behaviour,
    preset: str | None = None,
    texts: Mapping[str, str] | None = None,
) -> tuple[list[Relation], tuple[str, ...]]:
    """Return the relation of each cluster, and say in sentences what was matched.

    Clusters without a relation of the preset keep their generated description. `texts` replaces the texts of the
    relations with its IDs.

    Raises:
        InputError: a preset does not fit the categories, no ID of `texts` exists, or two relations get the same text.
    """
    found = describe_clusters(log, membership, behaviour)
    told: list[str] = []
    if preset is not None:
        found, told = _with_preset(found, category_totals(log, membership), log.category_names, preset)
    if texts is not None:
        found, edited = _with_texts(found, texts)
        told += edited
    return found, tuple(told)


def _with_preset(
    found: Sequence[Relation],
    counts: Float[ndarray, "clusters categories"],
    names: Sequence[str],
    preset: str,
) -> tuple[list[Relation], list[str]]:
    """Give the relations of the preset to the clusters that fit them."""
    relations = read_preset(preset)
    matches = match_preset(relations, counts, names)
    matched = {match.cluster: match.relation for match in matches}
    taken = {relation.relation_id for relation in matched.values()}
    named: list[Relation] = []
    for cluster, relation in enumerate(found):
        if cluster in matched:
            own = matched[cluster]
            named.append(Relation(own.relation_id, own.description, name=own.name))
            continue
        name = relation.relation_id
        while name in taken:
            name = f"{name}-{cluster + 1}"
        taken.add(name)
        named.append(replace(relation, relation_id=name))
    notes = [
        f"Preset {preset!r}: {match.relation.relation_id!r} describes the cluster "
        f"{found[match.cluster].relation_id!r} "
        f"(Jensen-Shannon distance {match.distance:.2f})."
        for match in matches
    ]
    unused = [relation.relation_id for relation in relations if relation not in matched.values()]
    if unused:
        notes.append(
            f"Preset {preset!r}: {len(unused)} of {len(relations)} relations are unused, because there are only "
            f"{len(found)} clusters: {', '.join(unused)}. Use --clusters {len(relations)}."
        )
    if len(found) > len(relations):
        notes.append(
            f"Preset {preset!r} has {len(relations)} relations for {len(found)} clusters; the others keep their "
            f"generated descriptions. Use --clusters {len(relations)}."
        )
    return named, notes


def _with_texts(found: Sequence[Relation], texts: Mapping[str, str]) -> tuple[list[Relation], list[str]]:
    """Replace the texts of the relations that `texts` names."""
    ids = [relation.relation_id for relation in found]
    unknown = [name for name in texts if name not in ids]
    missing = [name for name in ids if name not in texts]
    if len(unknown) == len(texts):
        raise InputError(
            f"--relation-texts describes the relations {', '.join(texts)}, but the log has the relations "
            f"{', '.join(ids)}. Edit the texts of relations.json and keep its IDs."
        )
    notes = [f"{len(texts) - len(unknown)} of {len(ids)} relations have the texts of --relation-texts."]
    if unknown:
        notes.append(
            f"--relation-texts describes relations that the log does not have: {', '.join(unknown)}."
        )
    if missing:
        notes.append(
            f"--relation-texts lacks relations, which keep their generated texts: {', '.join(missing)}."
        )
    named = [
        replace(relation, description=texts.get(relation.relation_id, relation.description))
        for relation in found
    ]
    first: dict[str, str] = {}
    for relation in named:
        name, text = relation.relation_id, relation.description
        if first.setdefault(text, name) != name:
            raise InputError(
                f"the relations {first[text]!r} and {name!r} have the same text, {text!r}. Give each its own text."
            )
    return named, notes
