"""Several prepared data sets as one: the domains that one checkpoint is trained on (section 4.1 of the paper).

Training needs no special case. The pairs of all domains are one set P, a batch draws from it at random, and the
negatives N(i) of an item are the unrelated items of the batch (section 3.2), whichever domain they are from. The
relation of an item with itself is the same everywhere and occurs once. Only the IDs must be kept apart: if two domains
have the same ID, of an item or of a relation, it gets the name of the domain in front, as in `baby:17`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int
from numpy import ndarray

from model.artifact import Manifest
from model.errors import InputError, MismatchError
from model.records import Edge

from .item_input import ItemFormat
from .prepared_data import Prepared


@dataclass(frozen=True)
class JoinedData(Prepared):
    """Data of several domains. `path` is that of the first domain, and the pictures have absolute paths.

    `names[d]` is the name of the domain `parts[d]`, and `item_ids[d]` and `relation_ids[d]` map its IDs to those here.
    """

    parts: tuple[Prepared, ...]
    names: tuple[str, ...]
    item_ids: tuple[Mapping[str, str], ...]
    relation_ids: tuple[Mapping[str, str], ...]

    @classmethod
    def of(cls, parts: Sequence[Prepared]) -> "JoinedData":
        """Join prepared data, in this order.

        Raises:
            InputError: two parts have the same content, or their IDs cannot be kept apart.
            MismatchError: the parts describe the relation of an item with itself differently.
        """
        _refuse_repeated(parts)
        names = _domain_names(parts)
        item_ids = _distinct_ids("item", [[item.item_id for item in part.items] for part in parts], names)
        inter = [[relation for relation in part.relations if not relation.intra] for part in parts]
        relation_ids = _distinct_ids(
            "relation", [[relation.relation_id for relation in own] for own in inter], names
        )
        intra = {relation for part in parts for relation in part.relations if relation.intra}
        if len({relation.description for relation in intra}) > 1:
            raise MismatchError(
                f"{parts[0].path} and another folder describe the relation of an item with itself differently. Give "
                "it the same description in both relations.json files."
            )
        first = next(relation for relation in parts[0].relations if relation.intra)
        return cls(
            path=parts[0].path,
            manifest=Manifest(
                format=parts[0].manifest.format,
                kind="prepared",
                version=parts[0].manifest.version,
                parents=_digests(parts),
                counts={},
                files={},
            ),
            items=tuple(
                replace(
                    item,
                    item_id=ids[item.item_id],
                    picture=str((part.path / item.picture).absolute()) if item.picture else "",
                )
                for part, ids in zip(parts, item_ids, strict=True)
                for item in part.items
            ),
            splits=tuple(split for part in parts for split in part.splits),
            relations=(
                first,
                *(
                    replace(relation, relation_id=ids[relation.relation_id])
                    for own, ids in zip(inter, relation_ids, strict=True)
                    for relation in own
                ),
            ),
            edges=_renamed([part.edges for part in parts], item_ids, relation_ids),
            edges_across=_renamed([part.edges_across for part in parts], item_ids, relation_ids),
            parts=tuple(parts),
            names=names,
            item_ids=item_ids,
            relation_ids=relation_ids,
        )

    @property
    def digests(self) -> dict[str, str]:
        """Digests of all parts; the first is `prepared`, the others `prepared-2`, `prepared-3`, ...."""
        return _digests(self.parts)

    def require_pictures(self) -> None:
        """Refuse data of which a domain has no pictures; see `Prepared.require_pictures`."""
        for part in self.parts:
            part.require_pictures()

    def part(self, domain: int) -> Prepared:
        """Return the data of one domain."""
        return self.parts[domain]

    @property
    def domain_of_relation(self) -> Int[ndarray, " relations"]:
        """Number of the domain of each relation; -1 for the relation of an item with itself."""
        counts = [len(ids) for ids in self.relation_ids]
        return np.append(-1, np.repeat(np.arange(len(counts)), counts))

    @property
    def composition(self) -> ItemFormat:
        """Input format of the items, if all domains have the same.

        Raises:
            MismatchError: the domains were prepared with different formats.
        """
        formats = [part.composition for part in self.parts]
        if any(own != formats[0] for own in formats):
            raise MismatchError(
                f"{self.parts[0].path} and another folder have items in different formats. Prepare them with the same "
                "--text-fields and --picture-size."
            )
        return formats[0]

    def interactions(self) -> pl.DataFrame | None:
        """Read the interactions of all domains, or return None if a domain has none; see `Prepared.interactions`."""
        found, users, items = [], 0, 0
        for part, ids in zip(self.parts, self.relation_ids, strict=True):
            log = part.interactions()
            if log is None:
                return None
            found.append(
                log.with_columns(
                    pl.col("user") + users, pl.col("item") + items, pl.col("relation_id").replace(dict(ids))
                )
            )
            users += log["user"].n_unique()  # they are numbered from 0
            items += len(part.items)
        return pl.concat(found)


def open_prepared(paths: Sequence[Path]) -> Prepared:
    """Open the prepared data at each of `paths`, and join them if there are several.

    Raises:
        ArtifactError: a folder does not exist or is damaged.
        InputError: two folders have the same content, or their IDs cannot be kept apart.
        MismatchError: the folders describe the relation of an item with itself differently.
    """
    parts = [Prepared.open(path) for path in paths]
    return parts[0] if len(parts) == 1 else JoinedData.of(parts)


def _digests(parts: Sequence[Prepared]) -> dict[str, str]:
    return {
        "prepared" if number == 1 else f"prepared-{number}": part.manifest.digest
        for number, part in enumerate(parts, start=1)
    }


def _refuse_repeated(parts: Sequence[Prepared]) -> None:
    seen: dict[str, Path] = {}
    for part in parts:
        digest = part.manifest.digest
        if digest in seen:
            raise InputError(
                f"--prepared {seen[digest]} and {part.path} have the same content, so every item would be trained on "
                "twice. Give each domain once."
            )
        seen[digest] = part.path


def _domain_names(parts: Sequence[Prepared]) -> tuple[str, ...]:
    """Name each part after the domain of its relations or, if that is empty or not unique, after its folder."""
    domains = [next((one.domain for one in part.relations if one.domain), "") for part in parts]
    folders = [part.path.absolute().name for part in parts]
    counts = Counter(domains)
    names = [
        domain if domain and counts[domain] == 1 else folder
        for domain, folder in zip(domains, folders, strict=True)
    ]
    counts = Counter(names)
    return tuple(
        name if counts[name] == 1 else f"{name}-{number}" for number, name in enumerate(names, start=1)
    )


def _distinct_ids(
    kind: str, ids: Sequence[Sequence[str]], names: Sequence[str]
) -> tuple[Mapping[str, str], ...]:
    """Map the IDs of each domain to IDs that are distinct over all domains."""
    counts = Counter(one for own in ids for one in own)
    found = tuple(
        {one: f"{name}:{one}" if counts[one] > 1 else one for one in own}
        for own, name in zip(ids, names, strict=True)
    )
    taken = Counter(one for own in found for one in own.values())
    repeated = next((one for one, count in taken.items() if count > 1), None)
    if repeated is not None:
        raise InputError(
            f"Two domains have the {kind} ID {repeated!r}, even with the names of the domains ({', '.join(names)}) in "
            "front. Prepare them with another --domain."
        )
    return found


def _renamed(
    edges: Iterable[Iterable[Edge]],
    item_ids: Iterable[Mapping[str, str]],
    relation_ids: Iterable[Mapping[str, str]],
) -> tuple[Edge, ...]:
    """Return the edges of all domains with their new IDs."""
    found = []
    for own, items, relations in zip(edges, item_ids, relation_ids, strict=True):
        for edge in own:
            a, b = sorted((items[edge.item_a], items[edge.item_b]))
            found.append(replace(edge, item_a=a, item_b=b, relation_id=relations[edge.relation_id]))
    return tuple(found)
