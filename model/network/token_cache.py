"""Token caches on disk: the tokens of frozen towers, encoded once and read at every training step or by other networks.

`keep_tokens` writes what training reads in random order:

    text.npy image.npy                   float16 [items, tokens, width]: the states of `Tokens`
    text.mask.npy image.mask.npy         bool [items, tokens]
    text.summary.npy image.summary.npy   int64 [items]: the positions of the summary tokens

The towers do not change during training, so neither do their tokens.

`shared_batches` writes one file per batch, in full precision, for networks with the same towers that encode the same
items one after another.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.console import progress
from model.disk_space import check_room, has_room
from model.durable_files import share, storing
from model.plain_file import plain_status

from .inputs import Tokens

CACHE_BATCH_ITEMS = 64
"""Number of items encoded at a time."""

MIN_FREE_BYTES = 1 << 30
"""Free disk space that shared tokens leave for everything else."""


@dataclass(frozen=True)
class StoredTokens:
    """Tokens of many items in half precision, read from disk when they are taken."""

    kept: Tokens

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def mask(self) -> Tensor:
        """Mask of all tokens, bool `[items, tokens]`."""
        return self.kept.mask

    def take(self, rows: Int[Tensor, " taken"]) -> Tokens:
        """Return the tokens of the items at `rows` in float32."""
        found = self.kept.take(rows)
        return Tokens(found.states.float(), found.mask, found.summary)


def keep_tokens(
    file: Path, count: int, longest: int, encode: Callable[[Int[Tensor, " batch"]], Tokens], title: str
) -> StoredTokens:
    """Open the token cache at `file` (.npy); if it is not complete, encode all items into it first.

    `encode` returns the tokens of the items at the given positions, `longest` or fewer per item. The file with the
    positions is written last and then renamed, so it exists only if the cache is complete.

    Raises:
        InputError: the disk does not have enough free space.
        ArtifactError: something else lies at the path of a file.
    """
    if not _summary_file(file).is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        _encode_into(file, count, longest, encode, title)
    for path in (file, _mask_file(file), _summary_file(file)):
        plain_status(path, file.parent)
    # Opened as copy-on-write, although nothing writes to it, because torch warns about read-only arrays.
    states, mask, summary = (
        torch.from_numpy(np.load(path, mmap_mode="c"))
        for path in (file, _mask_file(file), _summary_file(file))
    )
    return StoredTokens(Tokens(states, mask, summary))


@torch.inference_mode()
def _encode_into(
    file: Path,
    count: int,
    longest: int,
    encode: Callable[[Int[Tensor, " batch"]], Tokens],
    title: str,
) -> None:
    batches = torch.arange(count).split(CACHE_BATCH_ITEMS)
    states: np.memmap | None = None
    mask, summary = np.zeros((count, longest), bool), np.zeros(count, np.int64)
    for rows in progress(batches, title, len(batches)):
        tokens = encode(rows).to(torch.device("cpu"))
        held = tokens.states.shape[1]
        if states is None:
            check_room(
                file.parent,
                count * longest * tokens.states.shape[2] * 2,
                "tokens of the frozen towers",
                "choose --out on another disk",
            )
            shape = (count, longest, tokens.states.shape[2])
            states = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)
        states[rows.numpy(), :held] = tokens.states.half().numpy()
        mask[rows.numpy(), :held], summary[rows.numpy()] = tokens.mask.numpy(), tokens.summary.numpy()
    assert states is not None, "a part has items"
    states.flush()
    np.save(_mask_file(file), mask)
    aside = file.with_suffix(".partial.npy")
    np.save(aside, summary)
    aside.rename(_summary_file(file))


def shared_batches(
    folder: Path, encode: Callable[[Int[Tensor, " batch"]], Tokens]
) -> Callable[[Int[Tensor, " batch"]], Tokens]:
    """Return `encode` with every batch kept in `folder`: it is encoded once, and read from there the next time.

    The kept tokens are bitwise those that `encode` returned. A folder belongs to one set of items, always in the same
    batches, and to towers with one digest (`model/checkpoint/tower_digest.py`). If the disk has too little free space,
    further batches are encoded each time.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def tokens_of(rows: Int[Tensor, " batch"]) -> Tokens:
        file = folder / f"{int(rows[0])}.safetensors"
        if file.is_file():
            kept = load_file(file)
            assert torch.equal(kept["rows"], rows), "the folder belongs to other batches"
            # Copied into memory of torch's alignment, on which the last bit of a matrix product can depend.
            return Tokens(kept["states"].clone(), kept["mask"].clone(), kept["summary"].clone())
        tokens = encode(rows)
        if not has_room(folder, MIN_FREE_BYTES + tokens.states.nbytes):
            return tokens
        parts = {"rows": rows, "states": tokens.states, "mask": tokens.mask, "summary": tokens.summary}
        with storing(folder):
            save_file({name: part.cpu().contiguous() for name, part in parts.items()}, file)
            share(file)
        return tokens

    return tokens_of


def _mask_file(file: Path) -> Path:
    return file.with_suffix(".mask.npy")


def _summary_file(file: Path) -> Path:
    return file.with_suffix(".summary.npy")
