"""Commands `rcml index verify`, `stats` and `compact`, which can run while a server uses the index."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy import ndarray

from indexes.builder.machine import readable_size
from indexes.config import CompactConfig, StatsConfig, VerifyConfig
from indexes.index import Index
from indexes.journal.change import JournalEntry
from indexes.journal.journal import LOST_ITEM_ID
from indexes.storage.generation import Generation
from indexes.storage.layout import journal_store, newest_generation
from indexes.storage.precomputed import PrecomputedAnswers
from indexes.storage.table_maker import ANSWERS_PER_ITEM
from indexes.storage.tokens import TokenStore
from indexes.vectors.backends import VECTORS_DIR
from indexes.vectors.contract import FileReport
from model.artifact import check_files
from model.console import say
from model.embeddings.free_text import FreeTextRelation
from model.errors import ArtifactError
from model.records import Item
from model.similarity import View

ITEMS_PER_PAGE = 1_000
"""Number of items verified at a time."""


def verify(config: VerifyConfig) -> str:
    """Read every file completely, compare the catalogue with the vectors, and return a one-line summary.

    Raises:
        ArtifactError: a file is missing or modified, or two files are inconsistent.
    """
    generation = Generation.open(newest_generation(config.index))
    check_files(generation.path, generation.manifest)
    try:
        _compare(generation)
        changes = _changes(generation)
    finally:
        generation.close()
    size = sum(record.size for record in generation.manifest.files.values())
    return (
        f"{generation.path} is intact: {len(generation.catalogue):,} items, {len(generation.manifest.files):,} files, "
        f"{readable_size(size)}; {len(changes):,} changes since it was written."
    )


def stats(config: StatsConfig) -> str:
    """Return the contents and the size of an index as a few lines of text.

    Raises:
        ArtifactError: the index is missing or damaged.
    """
    generation = Generation.open(newest_generation(config.index))
    manifest, vectors = generation.manifest, generation.vectors
    changes, reports = _changes(generation), list(vectors.report.values())
    free_text = _free_text(generation.tokens)
    generation.close()
    lost = sum(entry.change.item_id == LOST_ITEM_ID for entry in changes)
    sizes: dict[str, int] = defaultdict(int)
    for name, record in manifest.files.items():
        sizes[name.split("/")[0] if "/" in name else name] += record.size
    kinds = ", ".join(sorted({report.kind for report in reports}))
    recalls = [report.recall_at_10 for report in reports if report.recall_at_10 is not None]
    recall = (
        f"{min(recalls):.4f} to {max(recalls):.4f}, measured at build time" if recalls else "1, exact search"
    )
    lines = {
        "generation": generation.path.name,
        "items": f"{manifest.counts['items']:,}",
        "later changes": f"{len(changes):,}",
        **({"changes lost": f"{lost:,}, accepted"} if lost else {}),
        "relations": f"{manifest.counts['relations']:,}",
        "relations added": ", ".join(known.relation_id for known in generation.relations if known.free_text)
        or "none",
        "vectors": f"{vectors.count * len(reports):,} with {vectors.dim} components each ({', '.join(View)})",
        "vectors stored in": generation.config.vectors or "files",
        "changes stored in": journal_store(config.index, generation.config).name,
        "kind": kinds,
        "recall@10": recall,
        **free_text,
        **_filtered_recalls(reports),
        "bytes per vector": f"{np.mean([report.bytes_per_vector for report in reports]):.1f}",
        "precomputed answers": _precomputed(generation.answers),
        "digest": manifest.digest,
        "checkpoint": manifest.parents["checkpoint"],
        **{f"size of {name}": readable_size(size) for name, size in sorted(sizes.items()) if size >= 2**20},
        "size": readable_size(sum(sizes.values())),
    }
    width = max(map(len, lines))
    return "\n".join(f"{label:<{width}}  {value}" for label, value in lines.items())


def compact(config: CompactConfig) -> str:
    """Compact the changes into a new generation, and return a one-line summary.

    Raises:
        ArtifactError: the index is missing or damaged, or another process is writing a generation.
    """
    index = Index.open(config.index, config.checkpoint)
    try:
        changes = index.snapshot.overlay.changes
        if changes == 0:
            return f"{config.index} has no changes since its newest generation."
        index.compact(say)
        return f"Compacted the changes into {index.snapshot.generation.path}: {len(index):,} items."
    finally:
        index.close()


def _free_text(tokens: TokenStore | None) -> dict[str, str]:
    """Return the lines about free-text relations."""
    if tokens is None:
        return {"free-text relations": "no tokens"}
    return {
        "free-text relations": tokens.description,
        "free-text memory": f"{readable_size(tokens.mapped_bytes)}, shared by all processes, and up to "
        f"{readable_size(tokens.estimate_bytes_per_relation)} in each for a relation that it keeps",
    }


def _changes(generation: Generation) -> list[JournalEntry]:
    journal = generation.journal()
    try:
        return journal.since(generation.sequence)
    finally:
        journal.close()


def _compare(generation: Generation) -> None:
    path, manifest = generation.path, generation.manifest
    catalogue, vectors = generation.catalogue, generation.vectors
    counts = {
        "manifest.json": manifest.counts["items"],
        "catalogue.sqlite": len(catalogue),
        "attributes.parquet": len(generation.attributes),
        **{f"{VECTORS_DIR}/{name}": report.items for name, report in vectors.report.items()},
    }
    for name, count in counts.items():
        if count != len(catalogue):
            raise ArtifactError(
                f"{path}/{name} has {count} items, but catalogue.sqlite has {len(catalogue)}. Rebuild the index, "
                "or restore a backup."
            )
    for start in range(0, len(catalogue), ITEMS_PER_PAGE):
        items = catalogue.page(start, ITEMS_PER_PAGE)
        if missing := [item.picture for item in items if item.picture and item.picture not in manifest.files]:
            raise ArtifactError(
                f"{path}/{missing[0]} is listed in catalogue.sqlite but not in the manifest. Rebuild the index, or "
                "restore a backup."
            )
        rows = range(start, start + len(items))
        for relation, known in enumerate(generation.relations):
            for view in View:
                found = vectors.vectors(relation, view, rows)
                if known.free_text is not None:
                    _compare_with_tokens(generation, known.free_text, view, found, items, start)
                length = np.linalg.norm(found, axis=1)
                wrong = np.flatnonzero(~((np.abs(length - 1) < 0.01) | (length == 0)))
                if wrong.size:
                    raise ArtifactError(
                        f"{path}: the {view} vector of item {items[wrong[0]].item_id!r} under relation {relation} "
                        f"has length {length[wrong[0]]:.3f}, not 1. Rebuild the index, or restore a backup."
                    )


def _compare_with_tokens(
    generation: Generation,
    relation: FreeTextRelation,
    view: View,
    found: ndarray,
    items: list[Item],
    start: int,
) -> None:
    assert generation.tokens is not None, "an index with added relations stores tokens"
    made = relation.view(generation.tokens.tokens, view, np.arange(start, start + len(items)))
    # The tolerance of 2e-3 covers half precision and a different order of summation on another machine.
    wrong = np.flatnonzero(np.abs(found - made).max(axis=1) > 2e-3)
    if wrong.size:
        raise ArtifactError(
            f"{generation.path}: the {view} vector of item {items[wrong[0]].item_id!r} under {relation.description!r} "
            "does not match its tokens. Remove the relation and add it again."
        )


def _precomputed(answers: PrecomputedAnswers) -> str:
    """Return which similarities have precomputed answers, and the recall of the tables that are not exact."""
    names = ", ".join(answers.similarities) or "none"
    recalls = [(one.recall_at_10, one.recall) for one in answers.recalls.values()]
    if not recalls:
        return names
    at_10, all_of_them = zip(*recalls, strict=True)
    return (
        f"{names}; approximate: recall@10 {min(at_10):.4f} to {max(at_10):.4f}, recall@{ANSWERS_PER_ITEM} "
        f"{min(all_of_them):.4f} to {max(all_of_them):.4f}, measured when they were written"
    )


def _filtered_recalls(reports: Sequence[FileReport]) -> dict[str, str]:
    """Describe the least recall of the filters that were measured when the index was built, over all relations."""
    found = {}
    measured = [one for report in reports for one in report.filters]
    if measured:
        shares = sorted({one.share for one in measured}, reverse=True)
        least = {share: min(one.recall_at_10 for one in measured if one.share == share) for share in shares}
        used = sum(report.least_filter_share is not None for report in reports)
        found["filtered recall@10"] = (
            ", ".join(f"{share:.0%}: {recall:.4f}" for share, recall in least.items())
            + f"; {used} of {len(reports)} vector files answer wide filters from the ANN index"
        )
    coded = [report.code_recall_at_10 for report in reports if report.code_recall_at_10 is not None]
    if coded:
        found["filtered recall@10 of codes"] = (
            f"{min(coded):.4f}; {len(coded)} of {len(reports)} vector files have codes"
        )
    return found
