"""A generation with other relations: the same items, and for a relation more or less as much as it takes.

It holds the changes that the one before held, and no more: those since come on top of it as they came on top of
that. So nothing is made again of the relations that stay: their files are copied, graphs and answers included. Only
Milvus, whose collections belong to one generation each, is given all vectors anew.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from jaxtyping import Float32
from numpy import ndarray

from indexes.live.snapshot import Snapshot
from indexes.storage.attributes import FILE as ATTRIBUTES
from indexes.storage.catalogue import FILE
from indexes.storage.generation import Generation
from indexes.storage.layout import write_checkpoint_path
from indexes.storage.precomputed import FOLDER as ANSWERS
from indexes.storage.precomputed import write_precomputed
from indexes.storage.relation_table import IndexedRelation, save_relations
from indexes.storage.tokens import FOLDER as TOKENS
from indexes.vectors.backends import keep_vectors, open_vectors
from indexes.vectors.faiss_backend import FOLDER, Carried
from model.artifact import PICTURES, write_artifact
from model.embeddings.free_text import FLOAT32_CHUNK_ITEMS
from model.similarity import View

from .choices import choose_kind
from .compact import link


def write_revised(
    old: Generation,
    target: Path,
    relations: Sequence[IndexedRelation],
    checkpoint: Path,
    progress: Callable[[int, int], None],
) -> None:
    """Write the items of `old` as a generation at `target` that has these `relations`.

    Of a relation that `old` has not, the vectors are made from the tokens; it must be one in words. `progress` is told
    how many vectors and answers are done, of how many. `checkpoint` is where the checkpoint lies.

    Raises:
        InputError: so many vectors no longer fit the memory, or the recall, that were asked for.
        NoTokensError: `old` keeps no tokens.
    """
    before = {known.relation_id: position for position, known in enumerate(old.relations)}
    now = {position: known.relation_id for position, known in enumerate(relations)}
    carried = {position: before[known] for position, known in now.items() if known in before}
    added = [position for position in now if position not in carried]
    count, dim, config = len(old.catalogue), old.vectors.dim, old.config
    unchanged, similarities = Snapshot.of(old), old.answers.similarities
    done, total = 0, count * len(added) * (len(View) + len(similarities))

    def advance(by: int) -> None:
        nonlocal done
        done += by
        progress(done, total)

    def source(position: int, view: View) -> Iterator[Float32[ndarray, "chunk dim"]]:
        asked = carried.get(position, relations[position].worded)
        assert asked is not None, "a relation that is new is one in words"
        for start in range(0, count, FLOAT32_CHUNK_ITEMS):
            rows = range(start, min(start + FLOAT32_CHUNK_ITEMS, count))
            yield unchanged.vectors(asked, view, rows)
            if position in added:
                advance(len(rows))

    with write_artifact(target, "index", config, old.manifest.parents) as draft:
        keep_vectors(
            draft.path / FOLDER,
            target,
            config,
            len(relations),
            dim,
            source,
            choose_kind(config, count, len(relations), dim),
            carried=Carried(old.path / FOLDER, carried),
        )
        old.answers.copy(draft.path / ANSWERS, carried)
        with closing(open_vectors(draft.path / FOLDER)) as vectors:
            for position in added:
                for similarity in similarities:
                    write_precomputed(draft.path / ANSWERS, vectors, [position], [similarity])
                    advance(count)
        save_relations(draft.path, relations)
        for name in (FILE, ATTRIBUTES):
            shutil.copyfile(old.path / name, draft.path / name)
        if (old.path / TOKENS).is_dir():
            shutil.copytree(old.path / TOKENS, draft.path / TOKENS)
        if (old.path / PICTURES).is_dir():
            shutil.copytree(old.path / PICTURES, draft.path / PICTURES, copy_function=link)
        write_checkpoint_path(draft.path, checkpoint, target.parent)
        old.composition.write(draft.path)
        worded = sum(known.worded is not None for known in relations)
        draft.counts.update(old.manifest.counts, relations=len(relations), added=worded)
