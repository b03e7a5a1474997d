"""`rcml index verify` and `rcml index stats`: an index looked at from outside, without its checkpoint."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from model.artifact import Manifest, check_files, open_artifact
from model.errors import ArtifactError
from model.records import View

from .catalogue import Catalogue
from .config import StatsConfig, VerifyConfig
from .faiss_vectors import FOLDER, FaissVectors

PAGE = 1_000
"""Items looked at together."""


def verify(config: VerifyConfig) -> str:
    """Read every file through and compare catalogue and vectors; returns a one-line summary.

    Raises:
        ArtifactError: a file is missing or changed, or two parts do not agree.
    """
    manifest = open_artifact(config.index, "index")
    check_files(config.index, manifest)
    catalogue, vectors = Catalogue.open(config.index), FaissVectors(config.index / FOLDER)
    try:
        _compare(config.index, manifest, catalogue, vectors)
    finally:
        catalogue.close()
    size = sum(record.size for record in manifest.files.values())
    return (
        f"{config.index} is whole: {len(catalogue):,} items, {len(vectors.report)} sets of vectors, "
        f"{len(manifest.files):,} files, {_size(size)}."
    )


def stats(config: StatsConfig) -> str:
    """A few lines on what an index holds and takes.

    Raises:
        ArtifactError: there is none, or it is damaged.
    """
    manifest = open_artifact(config.index, "index")
    vectors = FaissVectors(config.index / FOLDER)
    sizes: dict[str, int] = defaultdict(int)
    for name, record in manifest.files.items():
        sizes[name.split("/")[0] if "/" in name else name] += record.size
    reports = list(vectors.report.values())
    kinds = ", ".join(sorted({report.kind for report in reports}))
    recalls = [report.recall_at_10 for report in reports if report.recall_at_10 is not None]
    recall = (
        f"{min(recalls):.4f} to {max(recalls):.4f}, measured when it was built" if recalls else "1, exact"
    )
    lines = {
        "items": f"{manifest.counts['items']:,}",
        "relations": f"{manifest.counts['relations']:,}",
        "vectors": f"{vectors.count * len(reports):,} of {vectors.dim} components ({', '.join(View)})",
        "kind": kinds,
        "recall@10": recall,
        "bytes a vector": f"{np.mean([report.bytes_per_vector for report in reports]):.1f}",
        "digest": manifest.digest,
        "checkpoint": manifest.parents["checkpoint"],
        **{f"size of {name}": _size(size) for name, size in sorted(sizes.items()) if size >= 2**20},
        "size": _size(sum(sizes.values())),
    }
    width = max(map(len, lines))
    return "\n".join(f"{label:<{width}}  {value}" for label, value in lines.items())


def _compare(path: Path, manifest: Manifest, catalogue: Catalogue, vectors: FaissVectors) -> None:
    counts = {
        "manifest.json": manifest.counts["items"],
        "catalogue.sqlite": len(catalogue),
        **{f"{FOLDER}/{name}.faiss": report.items for name, report in vectors.report.items()},
    }
    for name, count in counts.items():
        if count != len(catalogue):
            raise ArtifactError(f"{path}/{name} has {count} items, and catalogue.sqlite {len(catalogue)}.")
    for start in range(0, len(catalogue), PAGE):
        items = catalogue.page(start, PAGE)
        if missing := [item.picture for item in items if item.picture not in manifest.files]:
            raise ArtifactError(f"{path}/{missing[0]} is in catalogue.sqlite, but not in the manifest.")
        rows = range(start, start + len(items))
        for relation in range(manifest.counts["relations"]):
            for view in View:
                length = np.linalg.norm(vectors.vectors(relation, view, rows), axis=1)
                wrong = np.flatnonzero(~((np.abs(length - 1) < 0.01) | (length == 0)))
                if wrong.size:
                    raise ArtifactError(
                        f"{path}: the {view} vector of item {items[wrong[0]].item_id!r} under relation {relation} "
                        f"has length {length[wrong[0]]:.3f}, not 1; make the index again."
                    )


def _size(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
