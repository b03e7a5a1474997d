"""The tokens of every item, so that relations nobody indexed can be put to them (`model.encoding.WordedRelation`).

    tokens/
      text.npy image.npy                   H of eq. 3 in half precision, float16 [tokens, dim], item after item
      text.starts.npy image.starts.npy     int64 [items + 1]: where the tokens of each item begin

Texts have as many as they need, pictures as many as the tower makes of them. The files are mapped into memory: a
question reads the tokens of some hundred items.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from model.encoding import ItemTokens, TokenRows

FOLDER = "tokens"
"""Where they lie within an index."""

Modality = Literal["text", "image"]


def open_tokens(folder: Path) -> ItemTokens | None:
    """What `write_tokens` left in `folder`, mapped into memory; None if there is no such folder."""
    if not folder.is_dir():
        return None
    return ItemTokens(*(_open(folder, modality) for modality in get_args(Modality)))


def write_tokens(folder: Path, dim: int, source: Callable[[], Iterable[ItemTokens]]) -> None:
    """Write the tokens that `source` gives, some items at a time, into `folder`, which is made.

    `source` is called more than once: first to count, then to write.
    """
    folder.mkdir()
    for modality in get_args(Modality):
        counts = [np.diff(_rows(some, modality).starts) for some in source()]
        starts = np.append(0, np.cumsum(np.concatenate([np.empty(0, np.int64), *counts])))
        np.save(folder / f"{modality}.starts.npy", starts)
        # Not through a mapped file: a write to one ends the process where the disk is full.
        with (folder / f"{modality}.npy").open("wb") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": (int(starts[-1]), dim)}
            np.lib.format.write_array_header_1_0(file, header)
            for some in source():
                file.write(_rows(some, modality).states.astype("<f2", copy=False).tobytes())


def _open(folder: Path, modality: Modality) -> TokenRows:
    states = np.load(folder / f"{modality}.npy", mmap_mode="r", allow_pickle=False)
    return TokenRows(states, np.load(folder / f"{modality}.starts.npy", allow_pickle=False))


def _rows(tokens: ItemTokens, modality: Modality) -> TokenRows:
    return tokens.text if modality == "text" else tokens.image
