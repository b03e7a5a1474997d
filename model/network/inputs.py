"""Inputs and outputs of the towers: token IDs, decoded pictures, token states and patch layouts."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class TextInput:
    """Tokenized texts, padded to the same length.

    `mask` is True for every real token and for the summary token, even if the summary token is padding (SigLIP).
    `fields` is the number of the field that each token belongs to, counted from 0 in every text.
    """

    ids: Int[Tensor, "batch tokens"]
    mask: Bool[Tensor, "batch tokens"]
    fields: Int[Tensor, "batch tokens"]

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> "TextInput":
        """Return these texts on `device`."""
        return TextInput(self.ids.to(device), self.mask.to(device), self.fields.to(device))

    def take(self, rows: Int[Tensor, " taken"]) -> "TextInput":
        """Return the texts at `rows`, without the padding beyond the longest of them."""
        mask = _rows(self.mask, rows)
        longest = int(mask.any(dim=0).nonzero().max()) + 1
        ids, fields = _rows(self.ids, rows), _rows(self.fields, rows)
        return TextInput(ids[:, :longest], mask[:, :longest], fields[:, :longest])

    def padded(self, items: int, tokens: int, padding_id: int) -> "TextInput":
        """Return `items` texts of `tokens` tokens: these, padded, and then copies of the first one."""
        longer, more = tokens - self.ids.shape[1], items - len(self)
        ids, mask, fields = (
            torch.cat([rows, rows[:1].expand(more, -1)])
            for rows in (
                F.pad(self.ids, (0, longer), value=padding_id),
                F.pad(self.mask, (0, longer), value=False),
                F.pad(self.fields, (0, longer)),
            )
        )
        return TextInput(ids, mask, fields)


@dataclass(frozen=True)
class PictureInput:
    """Decoded pictures: uint8 pixels from `Preprocessor.decode`, or floats from `Preprocessor.normalise`.

    For a tower with a fixed picture size, `pixels` is `[batch, 3, height, width]` and `grid` is 0. For a tower that
    accepts any shape (NaFlex), `pixels` is `[batch, patches, values]` and `grid` holds the rows and columns of
    patches. Picture i then fills the first `grid[i, 0] * grid[i, 1]` patches.
    """

    pixels: Shaped[Tensor, "batch ..."]
    grid: Int[Tensor, "batch 2"]

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device) -> "PictureInput":
        """Return these pictures on `device`; a copy from pinned memory does not block."""
        return PictureInput(
            self.pixels.to(device, non_blocking=True), self.grid.to(device, non_blocking=True)
        )

    def take(self, rows: Int[Tensor, " taken"]) -> "PictureInput":
        """Return the pictures at `rows`."""
        return PictureInput(_rows(self.pixels, rows), _rows(self.grid, rows))

    def padded(self, items: int) -> "PictureInput":
        """Return `items` pictures: these, and then copies of the first one."""
        pixels, grid = (
            torch.cat([rows, rows[:1].expand(items - len(self), *rows.shape[1:])])
            for rows in (self.pixels, self.grid)
        )
        return PictureInput(pixels, grid)


def _rows(tensor: Shaped[Tensor, "all ..."], rows: Int[Tensor, " taken"]) -> Shaped[Tensor, "taken ..."]:
    # Use NumPy to index CPU tensors: several threads prepare batches, and torch would start an OpenMP pool in each.
    # Idle OpenMP threads spin and slow down the training thread (25 steps on two cores: 18 s instead of 11).
    if tensor.device.type == "cpu":
        return torch.from_numpy(tensor.numpy()[rows.numpy()])
    return tensor[rows]


@dataclass(frozen=True)
class Tokens:
    """Token-level embeddings of one modality (eq. 3), before projection into the joint space.

    Multiplying `states` by the backbone's projection for this modality gives H in the joint space. `summary` is the
    position of the summary token: in CLIP, EOT for a text and CLS for an image.
    """

    states: Float[Tensor, "batch tokens width"]
    mask: Bool[Tensor, "batch tokens"]
    summary: Int[Tensor, " batch"]

    def __len__(self) -> int:
        return len(self.summary)

    def to(self, device: torch.device) -> "Tokens":
        """Return these tokens on `device`."""
        return Tokens(self.states.to(device), self.mask.to(device), self.summary.to(device))

    def take(self, rows: Int[Tensor, " taken"]) -> "Tokens":
        """Return the tokens of the items at `rows`, without the padding beyond the longest of them."""
        mask, summary = _rows(self.mask, rows), _rows(self.summary, rows)
        longest = int(max(mask.any(dim=0).nonzero().max(), summary.max())) + 1
        return Tokens(_rows(self.states, rows)[:, :longest], mask[:, :longest], summary)

    def summary_states(self) -> Float[Tensor, "batch width"]:
        """Return the state of each summary token.

        The projected state is the feature vector of the original model before normalisation.
        """
        return self.states[torch.arange(len(self.summary), device=self.summary.device), self.summary]


@dataclass(frozen=True)
class PatchLayout:
    """Layout of the patches of a picture: `rows` by `columns`, from the top left.

    `height` and `width` are the shares of the picture's height and width that the patches cover. A remainder at the
    bottom or right that is smaller than a patch is not covered.
    """

    rows: int
    columns: int
    height: float
    width: float
