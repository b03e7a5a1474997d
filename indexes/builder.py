"""From a checkpoint and prepared items to an index: every item embedded under every relation, once.

    generation-000001/
      manifest.json config.json   what it is; its parents are a checkpoint and prepared data
      checkpoint.json             where the checkpoint lies, seen from the index
      relations.json              the relations, and how many pairs of items are known under each
      catalogue.sqlite            the items, in rows
      attributes.parquet          their attributes, in columns; row i is catalogue row i
      vectors/                    see `indexes/faiss_vectors.py`; row i is catalogue row i
      answers/                    see `indexes/answers.py`
      pictures/                   one file an item

Called by `rcml index build`, which opens the encoder: this file never loads torch.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jaxtyping import Float16
from numpy import ndarray
from PIL import Image

from model.artifact import PICTURES, write_artifact
from model.checkpoint import Checkpoint
from model.encoding import Encoding, ItemEncoder
from model.errors import InputError
from model.prepared import Prepared
from model.records import Item, Similarity, View
from model.terminal import progress, progress_bar

from .answers import FOLDER as ANSWERS
from .answers import write_answers
from .attributes import write_attributes
from .catalogue import write_catalogue
from .config import BuildConfig, IndexKind
from .faiss_vectors import FOLDER, FaissVectors, resident_bytes, write_vectors
from .generation import (
    Generation,
    changed_since_build,
    lock_index,
    next_generation,
    remove_generations,
    write_checkpoint_path,
)
from .journal import last_sequence

EXACT = 100_000
"""Up to so many items, all vectors are scanned unless another kind is asked for."""


def build(config: BuildConfig, encoder: ItemEncoder, checkpoint: Checkpoint, prepared: Prepared) -> None:
    """Write the index of `prepared` under `checkpoint` to `config.out`; `encoder` is that checkpoint, opened.

    An index there is replaced, unless items were changed since it was built.

    Only one batch of items is held at a time, beside the vectors already in half precision.

    Raises:
        ArtifactError: `config.out` holds something else, or another run is writing it.
        InputError: `config.out` has changes that would be lost, no kind fits `config.max_memory`, or the one
            asked for misses `config.min_recall`.
    """
    assert encoder.relations == checkpoint.relations, "the encoder is not the one of the checkpoint"
    relations = len(checkpoint.relations)
    kind = choose_kind(config, len(prepared.items), relations, encoder.dim)
    parents = {"checkpoint": checkpoint.manifest.digest, "prepared": prepared.manifest.digest}
    target = next_generation(config.out)
    sequence = last_sequence(config.out)
    if changed_since_build(config.out, sequence) and not config.discard_changes:
        raise InputError(
            f"{config.out} has changes that {config.prepared} does not know of (the last is number {sequence}). "
            "Choose another --out, or give --discard-changes to lose them."
        )
    with lock_index(config.out), write_artifact(target, "index", config, parents) as draft:
        batches = -(-len(prepared.items) // config.batch_size)
        encoded: dict[View, list[Float16[ndarray, "items relations dim"]]] = {view: [] for view in View}
        for encoding in progress(
            _encodings(encoder, prepared, config.batch_size), "embedding items", batches
        ):
            for view in View:
                encoded[view].append(encoding.view(view).astype(np.float16))
        with progress_bar(f"indexing ({kind})", relations * len(View)) as advance:
            write_vectors(
                draft.path / FOLDER,
                relations,
                encoder.dim,
                lambda relation, view: (vectors[:, relation] for vectors in encoded[view]),
                kind,
                config.min_recall,
                lambda: advance(""),
            )
        write_answers(
            draft.path / ANSWERS,
            FaissVectors(draft.path / FOLDER),
            relations,
            answered(config, len(prepared.items)),
        )
        write_catalogue(draft.path, prepared.items)
        write_attributes(draft.path, prepared.items)
        shutil.copytree(prepared.path / PICTURES, draft.path / PICTURES)
        _write_relations(draft.path, prepared, checkpoint)
        write_checkpoint_path(draft.path, config.checkpoint, config.out)
        draft.counts["items"] = len(prepared.items)
        draft.counts["relations"] = relations
        draft.counts["sequence"] = draft.counts["built"] = sequence
    remove_generations(config.out, {target})
    generation = Generation.open(target)
    journal = generation.journal()
    journal.newest()  # those discarded are forgotten
    journal.close()
    generation.close()


def choose_kind(config: BuildConfig, items: int, relations: int, dim: int) -> IndexKind:
    """The kind asked for, or the fastest exact enough that fits.

    Raises:
        InputError: none fits `config.max_memory`.
    """

    def fits(kind: IndexKind) -> bool:
        return config.max_memory is None or need(kind) <= config.max_memory

    def need(kind: IndexKind) -> int:
        return items * relations * len(View) * resident_bytes(kind, dim)

    preferred: tuple[IndexKind, ...] = ("hnsw", "ivf-rabitq")
    if items <= EXACT:
        preferred = ("flat", *preferred)
    asked = preferred if config.kind == "auto" else (config.kind,)
    for kind in asked:
        if fits(kind):
            return kind
    raise InputError(
        f"{items:,} items under {relations} relations take {need(asked[-1]) / 2**30:,.2f} GiB as {asked[-1]}, more "
        f"than --max-memory {config.max_memory.human_readable() if config.max_memory else ''} allows."
    )


def answered(config: BuildConfig, items: int) -> tuple[Similarity, ...]:
    """The similarities that are to have tables of answers."""
    match config.answers:
        case "auto":
            return (Similarity.AVG,) if items <= EXACT else ()
        case "none":
            return ()
        case "all":
            return tuple(Similarity)
        case similarity:
            return (Similarity(similarity),)


def _encodings(encoder: ItemEncoder, prepared: Prepared, batch_size: int) -> Iterator[Encoding]:
    for start in range(0, len(prepared.items), batch_size):
        yield _encode(encoder, prepared.path, prepared.items[start : start + batch_size])


def _encode(encoder: ItemEncoder, folder: Path, items: tuple[Item, ...]) -> Encoding:
    with ExitStack() as files:
        pictures = [files.enter_context(Image.open(folder / item.picture)).convert("RGB") for item in items]
    return encoder.encode_items([item.text for item in items], pictures)


def _write_relations(folder: Path, prepared: Prepared, checkpoint: Checkpoint) -> None:
    pairs = Counter(edge.relation_id for edge in prepared.edges)
    relations = [
        {**asdict(relation), "pairs": None if relation.intra else pairs[relation.relation_id]}
        for relation in checkpoint.relations
    ]
    text = json.dumps(relations, indent=2, ensure_ascii=False) + "\n"
    (folder / "relations.json").write_text(text, encoding="utf-8")
