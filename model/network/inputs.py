"""Inputs of the towers and what comes out of them: token ids, decoded images, token states, patch layouts."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class TextInput:
    """Tokenized texts, padded to the longest; mask: True = a real token, or the one that sums up a text."""

    ids: Int[Tensor, "batch tokens"]
    mask: Bool[Tensor, "batch tokens"]

    def to(self, device: torch.device) -> "TextInput":
        """Copy to `device`."""
        return TextInput(self.ids.to(device), self.mask.to(device))

    def take(self, rows: Int[Tensor, " taken"]) -> "TextInput":
        """Take the texts at `rows`, cut to the longest of them."""
        mask = _rows(self.mask, rows)
        longest = int(mask.any(dim=0).nonzero().max()) + 1
        return TextInput(_rows(self.ids, rows)[:, :longest], mask[:, :longest])


@dataclass(frozen=True)
class PictureInput:
    """Decoded pictures: bytes as they are kept, floats once `Preprocessor.normalise` has seen them.

    A tower for pictures of one size takes `[batch, 3, height, width]`. One for pictures of any shape takes
    `[batch, patches, values]`, of which picture i fills the first `grid[i, 0] * grid[i, 1]`; `grid` holds
    rows and columns of patches, and is left at 0 by the former.
    """

    pixels: Shaped[Tensor, "batch ..."]
    grid: Int[Tensor, "batch 2"]

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device) -> "PictureInput":
        """Copy to `device`; from pinned memory without waiting for it."""
        return PictureInput(
            self.pixels.to(device, non_blocking=True), self.grid.to(device, non_blocking=True)
        )

    def take(self, rows: Int[Tensor, " taken"]) -> "PictureInput":
        """Take the pictures at `rows`."""
        return PictureInput(_rows(self.pixels, rows), _rows(self.grid, rows))


def _rows(tensor: Shaped[Tensor, "all ..."], rows: Int[Tensor, " taken"]) -> Shaped[Tensor, "taken ..."]:
    # By NumPy on a CPU: batches are made by threads of their own, in each of which torch would start OpenMP's. Those
    # spin while they wait, at the expense of the thread that trains (25 steps on two cores: 18 s instead of 11).
    if tensor.device.type == "cpu":
        return torch.from_numpy(tensor.numpy()[rows.numpy()])
    return tensor[rows]


@dataclass(frozen=True)
class Tokens:
    """Token-level embeddings of one modality (eq. 3), in the width of its tower.

    Times the backbone's projection for this modality, `states` is H, in the joint space. `summary` is the position
    of the token that speaks for the whole: in CLIP EOT of a text, CLS of a picture.
    """

    states: Float[Tensor, "batch tokens width"]
    mask: Bool[Tensor, "batch tokens"]
    summary: Int[Tensor, " batch"]

    def summary_states(self) -> Float[Tensor, "batch width"]:
        """Take the summary token of each: projected, what the model itself would return, before normalisation."""
        return self.states[torch.arange(len(self.summary), device=self.summary.device), self.summary]


@dataclass(frozen=True)
class PatchLayout:
    """Layout of the patches of a picture: rows and columns from its top left, over shares of its sides.

    A tower leaves out the rest of a side that no whole patch fits.
    """

    rows: int
    columns: int
    height: float
    width: float
