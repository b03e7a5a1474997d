"""Tokens of every item, from which scores under free-text relations are computed (`FreeTextRelation`).

    tokens/
      text.npy image.npy                   float16 [tokens, dim]: the tokens H (eq. 3 of the paper), item after item
      text.starts.npy image.starts.npy     int64 [items + 1]: index of the first token of each item
      *.codes.npy *.scale.npy ...          see `indexes/storage/low_rank_tokens.py`
      report.json probes.safetensors       see `indexes/storage/free_text_report.py`

The number of text tokens depends on the text, the number of image tokens on the image tower. The files are mapped into
memory: a request reads the tokens of a few hundred items.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Literal, get_args

import faiss
import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from indexes.vectors.bfloat_vectors import padded_width
from indexes.vectors.faiss_threads import threads
from model.embeddings.encoding import ItemTokens, TokenRows
from model.embeddings.free_text import FreeTextRelation
from model.plain_file import damaged
from model.similarity import View

from .arrays import ArrayWriter, map_array, read_array, save_array
from .estimates import Estimates
from .free_text_report import FreeTextReport
from .low_rank_tokens import LowRankTokens, write_low_rank_tokens

TOKENS_DIR = "tokens"
"""Name of the folder within a generation that contains the tokens."""

COMPONENTS = (16, 24, 32, 64)
"""Numbers of components of the low-rank projections to choose from; see `indexes/builder/free_text_recall.py`."""

ESTIMATE_BYTES = 2**29
"""Memory for the estimates of a generation by default, in bytes."""

MAX_ESTIMATES = 48
"""Maximum number of estimates of a generation that are kept; each keeps the arrays of its relation."""

Modality = Literal["text", "image"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)


@dataclass(frozen=True)
class StoredRows(TokenRows):
    """Half-precision tokens that `take` converts to single precision. FAISS converts ten times as fast as NumPy."""

    def take(self, rows: Int64[ndarray, " taken"]) -> TokenRows:
        """Copy the tokens of the items at `rows` in single precision; see `TokenRows.take`."""
        narrow = super().take(rows)
        dim = narrow.states.shape[1]
        codes = np.ascontiguousarray(narrow.states).view(np.uint8).reshape(len(narrow.states), 2 * dim)
        with threads(1):
            states = faiss.ScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16).decode(codes)
        return TokenRows(states, narrow.starts)


def stored(tokens: ItemTokens) -> ItemTokens:
    """Wrap half-precision tokens so that `take` converts them to single precision."""
    return ItemTokens(*(StoredRows(rows.states, rows.starts) for rows in (tokens.text, tokens.image)))


class TokenStore:
    """Tokens of a generation; safe to use from many threads."""

    def __init__(self, folder: Path, estimate_bytes: int = ESTIMATE_BYTES) -> None:
        """Open the tokens that `write_tokens` wrote, and keep estimates of at most `estimate_bytes` in memory.

        Raises:
            ArtifactError: a file is damaged.
        """
        self.tokens = ItemTokens(*(_open(folder, modality) for modality in MODALITIES))
        self._low_rank = [_low_rank(folder, modality, self.tokens) for modality in MODALITIES]
        self.report = FreeTextReport.read(folder)
        self._estimates: OrderedDict[tuple[FreeTextRelation, View], Estimates] = OrderedDict()
        self._estimate_bytes = estimate_bytes
        self._lock = Lock()

    @property
    def components(self) -> int:
        """Number of components of the low-rank projections."""
        return len(self._low_rank[0].scale)

    @property
    def bytes_per_item(self) -> float:
        """Mean size of the tokens of an item."""
        tokens = self.tokens
        return (tokens.text.states.nbytes + tokens.image.states.nbytes) / max(len(tokens.text), 1)

    @property
    def mapped_bytes(self) -> int:
        """Size of the arrays that the first search under a relation reads; all processes of a machine share them."""
        lengths = [one.lengths.nbytes for one in self._low_rank if one.lengths is not None]
        return sum(one.codes.nbytes for one in self._low_rank) + sum(lengths)

    @property
    def estimate_bytes_per_relation(self) -> int:
        """Greatest size of the estimates under one relation in the average view, the largest of the three."""
        return 2 * len(self.tokens.text) * padded_width(2 * (self.components + 1))

    @property
    def description(self) -> str:
        """How searches under free-text relations work in this index, in words."""
        return f"{self.report.description}; {self.components} components"

    def estimates(self, relation: FreeTextRelation, view: View) -> Estimates:
        """Return the estimated vectors of all items under a relation, in one view.

        The estimates that were used last are kept, as far as they fit into the memory for them; the last one is kept
        even if it takes more. The key is the relation object.
        """
        key = relation, view
        with self._lock:
            found = self._estimates.get(key)
            if found is None:
                found = self._estimates[key] = Estimates(relation, view, *self._low_rank)
            self._estimates.move_to_end(key)
            while len(self._estimates) > 1 and (
                len(self._estimates) > MAX_ESTIMATES
                or sum(one.nbytes for one in self._estimates.values()) > self._estimate_bytes
            ):
                self._estimates.popitem(last=False)
        return found


def write_tokens(folder: Path, dim: int, source: Iterable[ItemTokens]) -> None:
    """Create `folder` and write the tokens in `source`, which has some items at a time."""
    folder.mkdir()
    counts: dict[Modality, list[ndarray]] = {modality: [np.zeros(1, np.int64)] for modality in MODALITIES}
    with (
        ArrayWriter(folder / "text.npy", dim, "<f2") as text,
        ArrayWriter(folder / "image.npy", dim, "<f2") as image,
    ):
        for some in source:
            for modality, writer in zip(MODALITIES, (text, image), strict=True):
                rows = _rows(some, modality)
                counts[modality].append(np.diff(rows.starts))
                writer.append(rows.states)
    for modality in MODALITIES:
        save_array(folder / f"{modality}.starts.npy", np.cumsum(np.concatenate(counts[modality])))
    write_projections(folder, COMPONENTS[0])


def write_projections(folder: Path, components: int) -> None:
    """Write the low-rank projections of the tokens in `folder`, or replace them.

    Raises:
        OSError: the disk is full or failing; `errno` has the reason.
    """
    for modality in MODALITIES:
        write_low_rank_tokens(folder, modality, _open(folder, modality), components)


def _open(folder: Path, modality: Modality) -> StoredRows:
    states = map_array(folder / f"{modality}.npy", "<f2", 2)
    path = folder / f"{modality}.starts.npy"
    starts = read_array(path, "<i8", 1)
    if not len(starts) or starts[0] != 0 or starts[-1] != len(states) or (np.diff(starts) < 0).any():
        raise damaged(path, f"its bounds do not divide the {len(states):,} tokens")
    return StoredRows(states, starts)


def _low_rank(folder: Path, modality: Modality, tokens: ItemTokens) -> LowRankTokens:
    rows = _rows(tokens, modality)
    found = LowRankTokens.open(folder, modality, rows.starts)
    (count, components), dim = found.codes.shape, rows.states.shape[1]
    parts = (found.basis.shape == (dim, components), found.scale.shape == (components,))
    if (
        count != len(rows.states)
        or not all(parts)
        or (found.lengths is not None and len(found.lengths) != count)
    ):
        raise damaged(folder / f"{modality}.basis.npy", "the low-rank tokens do not belong to the tokens")
    return found


def _rows(tokens: ItemTokens, modality: Modality) -> TokenRows:
    return tokens.text if modality == "text" else tokens.image
