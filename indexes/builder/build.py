"""Build of an index from a checkpoint and prepared data: every item is embedded once under every relation.

    generation-000001/
      manifest.json config.json   digests, parents (a checkpoint and prepared data) and options
      checkpoint.json             path of the checkpoint, relative to the index
      relations.json              the relations; see `indexes/storage/relation_table.py`
      catalogue.sqlite            the items, one row each
      attributes.parquet          attributes of the items, in columns; row i is catalogue row i
      sorted-attributes/          the same columns, sorted; see `indexes/storage/sorted_column.py`
      vectors/                    see `indexes/vectors/faiss_backend.py`; row i is catalogue row i
      answers/                    see `indexes/storage/precomputed.py`
      tokens/                     see `indexes/storage/tokens.py`; only with --token-store
      pictures/                   one file for each item that has a picture
      composition.json            input format of the items; see `model/data/item_input.py`
      set-aside.json              skipped items, each with the reason why it could not be encoded

The `rcml index build` command opens the encoder and calls `build`. This module never loads torch.
"""

import json
import shutil
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from indexes.config import BuildConfig, IndexKind
from indexes.storage.attributes import write_attributes
from indexes.storage.catalogue import write_catalogue
from indexes.storage.generation import Generation
from indexes.storage.layout import (
    SKIPPED_FILE,
    changed_since_build,
    last_known_sequence,
    lock_index,
    next_generation,
    prepare_local_journal,
    prepared_journal,
    remove_generations,
    write_checkpoint_path,
)
from indexes.storage.precomputed import ANSWERS_DIR, write_precomputed
from indexes.storage.relation_table import save_relations
from indexes.storage.tokens import TOKENS_DIR, write_tokens
from indexes.vectors.backends import VECTORS_DIR, keep_vectors, open_vectors
from indexes.vectors.gpu_vectors import open_cards
from indexes.vectors.milvus.milvus_collections import check_server
from model.artifact import PICTURES, Draft, write_artifact
from model.checkpoint.checkpoint import Checkpoint
from model.console import progress_bar, say
from model.data.prepared_data import Prepared
from model.embeddings.encoder_protocol import ItemEncoder
from model.errors import InputError
from model.records import Item
from model.similarity import View

from .auto_options import choose_kind, precomputed_similarities
from .build_needs import build_needs
from .embed import SINGLE_PROCESS, Embedding, ProcessGroup
from .free_text_recall import choose_probes, write_report
from .relation_statistics import indexed_relations
from .shards import SHARDS_DIR, EncodingRun, Shards
from .steps import step


def build(
    config: BuildConfig,
    encoder: ItemEncoder,
    checkpoint: Checkpoint,
    prepared: Prepared,
    group: ProcessGroup = SINGLE_PROCESS,
) -> dict[str, int]:
    """Build the index of `prepared` in the folder `config.out`, with the `encoder` of `checkpoint`.

    An existing index is replaced. If it was changed after it was built, `config.discard_changes` must be true. In a
    process group, every process calls this function: all of them encode items, and rank 0 writes the index. Encoded
    items are stored in the index folder until the index is complete. If a build is interrupted or fails, the next call
    therefore reuses them.

    Returns:
        In rank 0, the counts in the manifest, such as the number of items; in other ranks, an empty dictionary.

    Raises:
        ArtifactError: `config.out` exists and is not an index, or another run is writing to it.
        InputError: `config.out` has changes that would be lost, the memory or the disk is too small, the configured
            kind misses `config.min_recall`, or no item can be encoded.
        StorageError: the disk is full or failing; an existing index is still available.
    """
    assert encoder.relations == checkpoint.relations, "the encoder belongs to another checkpoint"
    target = next_generation(config.out)
    parents = {"checkpoint": checkpoint.manifest.digest, "prepared": prepared.manifest.digest}
    shards = Shards(config.out / SHARDS_DIR, len(prepared.items))
    embedding = Embedding(encoder, prepared, shards, config)
    if group.rank > 0:
        group.wait()
        embedding.run(group)
        group.wait()
        return {}
    kind = _kind_that_fits(config, checkpoint, prepared, encoder.dim)
    if config.vectors is not None:
        check_server(config.vectors)
    config = config.model_copy(update={"journal": prepared_journal(config.out, config.journal)})
    sequence = _last_sequence(config)
    towers = encoder.towers.partition(":")[0]  # without the reason for the choice
    run = EncodingRun(parents=parents, towers=towers, tokens=config.token_store)
    with lock_index(config.out):
        try:
            shards.begin(run)
            group.wait()
            embedding.run(group)
            group.wait()
            prepare_local_journal(config.out, config)
            with write_artifact(target, "index", config, parents) as draft:
                _write(draft, target, config, kind, shards, checkpoint, prepared, encoder)
                draft.counts["sequence"] = draft.counts["built"] = sequence
                draft.counts["journal"] = int(config.journal is None)
        except BaseException:
            if not shards.done():
                shards.remove()
            raise
        shards.remove()
        remove_generations(config.out, {target})
    _forget_discarded_changes(target)
    return draft.counts


def _kind_that_fits(config: BuildConfig, checkpoint: Checkpoint, prepared: Prepared, dim: int) -> IndexKind:
    """Choose the kind of index, and print what the build needs.

    Raises:
        InputError: no kind fits into `config.max_memory`, or the build or the index exceeds the memory or the disk.
    """
    items, relations = len(prepared.items), len(checkpoint.relations)
    kind = choose_kind(config, items, relations, dim)
    answers = precomputed_similarities(config, kind, items, all(one.picture for one in prepared.items))
    needs = build_needs(config, kind, checkpoint, prepared, relations, dim, len(answers))
    for line in needs.describe(config, items, relations, dim):
        say(line)
    needs.check(config, items, relations, dim)
    return kind


def _forget_discarded_changes(target: Path) -> None:
    """Delete the changes to the replaced index from the journal.

    The journal deletes obsolete changes when it is first opened with a new generation, here the one at `target`.
    """
    generation = Generation.open(target)
    prepare_local_journal(target.parent, generation.config, replaced=True)
    journal = generation.journal()
    journal.newest()
    journal.close()
    generation.close()


def _last_sequence(config: BuildConfig) -> int:
    """Return the sequence number of the last change to the index at `config.out`; 0 if there is none.

    Raises:
        InputError: the index has changes that would be lost, and `config.discard_changes` is false.
    """
    sequence = last_known_sequence(config.out, config)
    if changed_since_build(config.out, sequence) and not config.discard_changes:
        raise InputError(
            f"{config.out} has changes that are not in {config.prepared} (last sequence number: {sequence}), or "
            "relations that were added at run time. Choose another --out, or pass --discard-changes to discard them."
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
    encoder: ItemEncoder,
) -> None:
    """Write all files of a new generation into `draft`, from the encoded items in `shards`.

    `target` is the final path of the generation.
    """
    relations = len(checkpoint.relations)
    items = tuple(prepared.items[place] for place in shards.kept())
    set_aside = {prepared.items[place].item_id: reason for place, reason in shards.set_aside().items()}
    if not items:
        raise InputError(
            f"No item of {config.prepared} could be encoded: {next(iter(set_aside.values()), 'it has no items')}."
        )
    files, count, dim = relations * len(View), len(items), encoder.dim
    with (
        step(f"indexing vectors ({kind})", files * count, "vectors") as finished,
        progress_bar(f"indexing ({kind})", files) as advance,
    ):

        def written() -> None:
            advance("")
            finished(count)

        keep_vectors(draft.path / VECTORS_DIR, target, config, relations, dim, shards.vectors, kind, written)
    if config.token_store:
        with step("storing tokens", count, "items"):
            write_tokens(draft.path / TOKENS_DIR, dim, shards.tokens())
            write_report(draft.path / TOKENS_DIR, choose_probes(encoder), config.min_recall)
    similarities = precomputed_similarities(config, kind, count, all(one.picture for one in items))
    cards = open_cards(0 if config.device == "cpu" else config.gpu_memory)
    with (
        closing(open_vectors(draft.path / VECTORS_DIR, cards)) as vectors,
        step("precomputing answers", count * relations * len(similarities), "answers") as finished,
    ):
        folder = draft.path / ANSWERS_DIR
        write_precomputed(folder, vectors, range(relations), similarities, advance=finished)
    with step("writing items", count, "items"):
        write_catalogue(draft.path, items)
        write_attributes(draft.path, items)
        _copy_pictures(prepared, draft, items)
    save_relations(draft.path, indexed_relations(checkpoint.relations, prepared))
    write_checkpoint_path(draft.path, config.checkpoint, config.out)
    prepared.composition.write(draft.path)
    (draft.path / SKIPPED_FILE).write_text(
        json.dumps(set_aside, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    draft.counts.update(items=len(items), relations=relations, set_aside=len(set_aside))


def _copy_pictures(prepared: Prepared, draft: Draft, items: Iterable[Item]) -> None:
    (draft.path / PICTURES).mkdir()
    for item in items:
        if item.picture:
            shutil.copyfile(prepared.path / item.picture, draft.path / item.picture)
            draft.carried[item.picture] = prepared.manifest.files[item.picture]
