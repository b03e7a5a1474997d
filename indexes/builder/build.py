"""From a checkpoint and prepared items to an index: every item embedded under every relation, once.

    generation-000001/
      manifest.json config.json   what it is; its parents are a checkpoint and prepared data
      checkpoint.json             where the checkpoint lies, seen from the index
      relations.json              the relations; see `indexes/storage/relation_table.py`
      catalogue.sqlite            the items, in rows
      attributes.parquet          their attributes, in columns; row i is catalogue row i
      vectors/                    see `indexes/vectors/faiss_backend.py`; row i is catalogue row i
      answers/                    see `indexes/storage/precomputed.py`
      tokens/                     see `indexes/storage/tokens.py`; with --token-store
      pictures/                   one file an item that has one
      composition.json            how items were made of what the shop says of them; see `model/data/item_input.py`
      set-aside.json              items that could not be encoded, and why

Called by `rcml index build`, which opens the encoder: this file never loads torch.
"""

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from indexes.config import BuildConfig, IndexKind
from indexes.journal.store import last_sequence
from indexes.storage.attributes import write_attributes
from indexes.storage.catalogue import write_catalogue
from indexes.storage.generation import Generation
from indexes.storage.layout import (
    SKIPPED_FILE,
    changed_since_build,
    journal_store,
    lock_index,
    next_generation,
    prepared_journal,
    remove_generations,
    write_checkpoint_path,
)
from indexes.storage.precomputed import ANSWERS_DIR, write_precomputed
from indexes.storage.relation_table import IndexedRelation, save_relations
from indexes.storage.tokens import TOKENS_DIR, write_tokens
from indexes.vectors.backends import VECTORS_DIR, keep_vectors, open_vectors
from indexes.vectors.milvus_collections import check_server
from model.artifact import PICTURES, Draft, write_artifact
from model.checkpoint.checkpoint import Checkpoint
from model.console import progress_bar
from model.data.prepared_data import Prepared
from model.embeddings.encoder_protocol import ItemEncoder
from model.errors import InputError
from model.records import Item
from model.similarity import View

from .auto_options import choose_kind, precomputed_similarities
from .embed import SINGLE_PROCESS, Embedding, ProcessGroup
from .shards import SHARDS_DIR, EncodingRun, Shards


def build(
    config: BuildConfig,
    encoder: ItemEncoder,
    checkpoint: Checkpoint,
    prepared: Prepared,
    group: ProcessGroup = SINGLE_PROCESS,
) -> dict[str, int]:
    """Write the index of `prepared` under `checkpoint` to `config.out`; `encoder` is that checkpoint, opened.

    An index there is replaced, unless items were changed since it was built. All processes of a `group` call this:
    they encode together, and the first writes the index. Encoded items are kept beside it until it is whole, so
    that the same call after a kill, or with another kind of index, goes on from there.

    Returns:
        The counts of the manifest; of no use to a process that is not the first.

    Raises:
        ArtifactError: `config.out` holds something else, or another run is writing it.
        InputError: `config.out` has changes that would be lost, no kind fits `config.max_memory`, the one
            asked for misses `config.min_recall`, or no item can be encoded.
        StorageError: the disk is full or failing; an index that was there is still there.
    """
    assert encoder.relations == checkpoint.relations, "the encoder is not the one of the checkpoint"
    target = next_generation(config.out)
    parents = {"checkpoint": checkpoint.manifest.digest, "prepared": prepared.manifest.digest}
    shards = Shards(config.out / SHARDS_DIR, len(prepared.items))
    embedding = Embedding(encoder, prepared.path, prepared.items, shards, config.token_store)
    if group.rank > 0:
        group.wait()
        embedding.run(group, config.batch_size, config.workers)
        group.wait()
        return {}
    kind = choose_kind(config, len(prepared.items), len(checkpoint.relations), encoder.dim)
    if config.vectors is not None:
        check_server(config.vectors)
    config = config.model_copy(update={"journal": prepared_journal(config.out, config.journal)})
    sequence = _last_sequence(config)
    run = EncodingRun(
        parents=parents, precision=config.precision, engine=config.engine, tokens=config.token_store
    )
    with lock_index(config.out):
        try:
            shards.begin(run)
            group.wait()
            embedding.run(group, config.batch_size, config.workers)
            group.wait()
            with write_artifact(target, "index", config, parents) as draft:
                _write(draft, target, config, kind, shards, checkpoint, prepared, encoder.dim)
                draft.counts["sequence"] = draft.counts["built"] = sequence
        except BaseException:
            if not shards.done():
                shards.remove()
            raise
        shards.remove()
        remove_generations(config.out, {target})
    _forget_discarded_changes(target)
    return draft.counts


def _forget_discarded_changes(target: Path) -> None:
    """Open the journal once with the new generation at `target`, which drops the changes that it does not hold."""
    generation = Generation.open(target)
    journal = generation.journal()
    journal.newest()
    journal.close()
    generation.close()


def _last_sequence(config: BuildConfig) -> int:
    """Return the sequence of the last change to the index at `config.out`, which the new build will hold or discard.

    Raises:
        InputError: there are changes that would be lost, and `config.discard_changes` is not given.
    """
    sequence = last_sequence(journal_store(config.out, config))
    if changed_since_build(config.out, sequence) and not config.discard_changes:
        raise InputError(
            f"{config.out} has changes that {config.prepared} does not know of (the last is number {sequence}), or "
            "relations that were added. Choose another --out, or give --discard-changes to lose them."
        )
    return sequence


def _write(
    draft: Draft,
    target: Path,
    config: BuildConfig,
    kind: IndexKind,
    shards: Shards,
    checkpoint: Checkpoint,
    prepared: Prepared,
    dim: int,
) -> None:
    """Write all files of the generation that is to be at `target`, from what was encoded."""
    relations = len(checkpoint.relations)
    items = tuple(prepared.items[place] for place in shards.kept())
    set_aside = {prepared.items[place].item_id: reason for place, reason in shards.set_aside().items()}
    if not items:
        raise InputError(
            f"No item of {config.prepared} could be encoded: {next(iter(set_aside.values()), 'there is none')}."
        )
    with progress_bar(f"indexing ({kind})", relations * len(View)) as advance:
        keep_vectors(
            draft.path / VECTORS_DIR,
            target,
            config,
            relations,
            dim,
            shards.vectors,
            kind,
            lambda: advance(""),
        )
    if config.token_store:
        write_tokens(draft.path / TOKENS_DIR, dim, shards.tokens)
    with closing(open_vectors(draft.path / VECTORS_DIR)) as vectors:
        write_precomputed(
            draft.path / ANSWERS_DIR,
            vectors,
            range(relations),
            precomputed_similarities(config, len(items), all(one.picture for one in items)),
        )
    write_catalogue(draft.path, items)
    write_attributes(draft.path, items)
    _copy_pictures(prepared.path, draft.path, items)
    save_relations(draft.path, _indexed_relations(checkpoint, prepared))
    write_checkpoint_path(draft.path, config.checkpoint, config.out)
    prepared.composition.write(draft.path)
    (draft.path / SKIPPED_FILE).write_text(
        json.dumps(set_aside, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    draft.counts.update(items=len(items), relations=relations, set_aside=len(set_aside))


def _indexed_relations(checkpoint: Checkpoint, prepared: Prepared) -> list[IndexedRelation]:
    """Count the known pairs under each relation of the checkpoint, and the items that stand in one."""
    pairs = Counter(edge.relation_id for edge in prepared.edges)
    paired: defaultdict[str, set[str]] = defaultdict(set)
    for edge in prepared.edges:
        paired[edge.relation_id] |= {edge.item_a, edge.item_b}
    return [
        IndexedRelation(
            relation,
            None if relation.intra else pairs[relation.relation_id],
            paired_items=None if relation.intra else len(paired[relation.relation_id]),
        )
        for relation in checkpoint.relations
    ]


def _copy_pictures(source: Path, target: Path, items: Iterable[Item]) -> None:
    (target / PICTURES).mkdir()
    for item in items:
        if item.picture:
            shutil.copyfile(source / item.picture, target / item.picture)
