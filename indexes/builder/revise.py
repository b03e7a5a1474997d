"""Addition and removal of relations: a new generation contains the same items under other relations.

The new generation includes the same changes as the old one, and later changes are applied on top of it as before. The
vectors under the remaining relations do not change, so their files are taken over, including ANN graphs and precomputed
answers. Only Milvus receives all vectors again, because each of its collections belongs to one generation.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from jaxtyping import Float32
from numpy import ndarray

from indexes.live.snapshot import Snapshot
from indexes.storage.attributes import copy_attributes
from indexes.storage.catalogue import CATALOGUE_FILE
from indexes.storage.generation import Generation
from indexes.storage.layout import write_checkpoint_path
from indexes.storage.precomputed import ANSWERS_DIR, write_precomputed
from indexes.storage.relation_table import IndexedRelation, save_relations
from indexes.storage.tokens import TOKENS_DIR
from indexes.vectors.backends import VECTORS_DIR, keep_vectors, open_vectors
from indexes.vectors.faiss_backend import Carried
from model.artifact import PICTURES, Draft, write_artifact
from model.durable_files import link_or_copy, take_over_folder
from model.embeddings.free_text import FLOAT32_CHUNK_ITEMS, FreeTextRelation
from model.errors import InputError, NoTokensError, UnknownRelationError
from model.item_limits import is_one_line
from model.records import Relation
from model.similarity import View

from .auto_options import choose_kind
from .compact import carry_picture, kind_of


def check_new_relation(generation: Generation, relation: Relation) -> None:
    """Check that a relation can be added to a generation.

    Raises:
        InputError: the ID or the description is not one line of text, or an existing relation already has it; or the
            name is not one line of text.
        NoTokensError: the generation stores no tokens.
    """
    if generation.tokens is None:
        raise NoTokensError
    texts = {"ID": relation.relation_id, "description": relation.description, "name": relation.display_name}
    for name, value in texts.items():
        if not value.strip() or not is_one_line(value):
            raise InputError(
                f"{value!r} cannot be the {name} of a relation. Use one line of text without control characters."
            )
    for known in generation.relations:
        if known.relation_id == relation.relation_id:
            raise InputError(f"Relation {known.relation_id!r} already exists. Choose another ID.")
        if known.relation.description == relation.description:
            raise InputError(
                f"Relation {known.relation_id!r} already has the description {relation.description!r}. Use that "
                "relation."
            )


def write_with_relation(
    old: Generation,
    target: Path,
    relation: Relation,
    free_text: FreeTextRelation,
    checkpoint: Path,
    progress: Callable[[int, int], None],
) -> None:
    """Write a generation at `target` with one more relation than `old`; see `write_revised`.

    Raises:
        InputError: see `check_new_relation` and `write_revised`.
        NoTokensError: `old` stores no tokens.
    """
    assert relation.description == free_text.description, "the free-text form belongs to another relation"
    check_new_relation(old, relation)
    relations = (*old.relations, IndexedRelation(relation, None, free_text))
    write_revised(old, target, relations, checkpoint, progress)


def write_without_relation(old: Generation, target: Path, relation_id: str, checkpoint: Path) -> None:
    """Write a generation at `target` without one of the relations of `old`; see `write_revised`.

    Raises:
        UnknownRelationError: no relation has this ID.
        InputError: the relation belongs to the checkpoint, so the encoder would still compute its vectors.
    """
    if relation_id not in old.positions:
        raise UnknownRelationError(relation_id, tuple(old.positions))
    if old.relations[old.positions[relation_id]].free_text is None:
        raise InputError(
            f"Relation {relation_id!r} cannot be removed, because the checkpoint was trained on it. Only relations "
            "that were added at run time can be removed."
        )
    kept = [known for known in old.relations if known.relation_id != relation_id]
    write_revised(old, target, kept, checkpoint)


def write_revised(
    old: Generation,
    target: Path,
    relations: Sequence[IndexedRelation],
    checkpoint: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write a generation at `target` that contains the items of `old` under the given `relations`.

    A relation that `old` lacks must have a free-text form (`FreeTextRelation`), which computes the vectors of all items
    from their tokens. `progress` is called with the number of vectors and precomputed answers done so far, and with
    their total. `checkpoint` is the path of the checkpoint.

    Raises:
        InputError: the vectors exceed the maximum memory in the options of `old`, or miss the minimum recall.
        NoTokensError: a relation is new, and `old` stores no tokens.
    """
    before = {known.relation_id: position for position, known in enumerate(old.relations)}
    ids = [known.relation_id for known in relations]
    carried = {position: before[known] for position, known in enumerate(ids) if known in before}
    added = [position for position in range(len(ids)) if position not in carried]
    count, dim, config = len(old.catalogue), old.vectors.dim, old.config
    unchanged, similarities = Snapshot.of(old), old.answers.similarities
    done, total = 0, count * len(added) * (len(View) + len(similarities))

    def advance(by: int) -> None:
        nonlocal done
        done += by
        progress(done, total)

    def source(position: int, view: View) -> Iterator[Float32[ndarray, "chunk dim"]]:
        asked = carried.get(position, relations[position].free_text)
        assert asked is not None, "a new relation has a free-text form"
        for start in range(0, count, FLOAT32_CHUNK_ITEMS):
            rows = range(start, min(start + FLOAT32_CHUNK_ITEMS, count))
            yield unchanged.vectors(asked, view, rows)
            if position in added:
                advance(len(rows))

    with write_artifact(target, "index", config, old.manifest.parents) as draft:
        folder, kind = draft.path / VECTORS_DIR, choose_kind(config, count, len(relations), dim, kind_of(old))
        from_old = Carried(old.path / VECTORS_DIR, carried)
        keep_vectors(folder, target, config, len(relations), dim, source, kind, carried=from_old)
        old.answers.copy(draft.path / ANSWERS_DIR, carried)
        with closing(open_vectors(folder, old.cards)) as vectors:
            for position in added:
                for similarity in similarities:
                    write_precomputed(draft.path / ANSWERS_DIR, vectors, [position], [similarity])
                    advance(count)
        save_relations(draft.path, relations)
        _copy_items(old, draft)
        write_checkpoint_path(draft.path, checkpoint, target.parent)
        old.composition.write(draft.path)
        by_text = sum(known.free_text is not None for known in relations)
        draft.counts.update(
            old.manifest.counts,
            relations=len(relations),
            added=by_text,
            journal=int(config.journal is None),
        )


def _copy_items(old: Generation, draft: Draft) -> None:
    """Take over the files that do not depend on the relations: items, attributes, tokens and pictures."""
    source, target = old.path, draft.path
    link_or_copy(source / CATALOGUE_FILE, target / CATALOGUE_FILE)
    copy_attributes(source, target)
    if (source / TOKENS_DIR).is_dir():
        take_over_folder(source / TOKENS_DIR, target / TOKENS_DIR)
    for name in old.manifest.files:
        if name.startswith(f"{PICTURES}/"):
            carry_picture(old, name, draft)
