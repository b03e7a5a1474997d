"""Normalisation of tokens: the mean token is subtracted, and every field of a text counts equally.

This is an addition to the paper (`--normalise-tokens`). The tokens of a pretrained tower share a large mean, which
makes all items similar (Mu & Viswanath 2018, arXiv 1702.01417). And a long description has so many tokens that the
title and the categories hardly affect an even pooling. After the normalisation, an even pooling of the tokens is the
mean of one unit vector for each field.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .inputs import Tokens

MIN_LENGTH = 1e-6
"""Minimum length that a vector is divided by."""

MIN_MEAN_SHARE = 0.01
"""Minimum length of the mean token of a field, as a share of the mean length of its tokens.

If all items have the same picture, the mean token of each is the centre up to rounding, and would stretch its tokens
without bound.
"""


class TokenNorm(nn.Module):
    """Normalisation of the tokens of one modality; `centre` is measured before training and then constant."""

    centre: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(width))

    def forward(self, tokens: Tokens, fields: Int[Tensor, "batch positions"] | None = None) -> Tokens:
        """Replace each token x of a field f with (x - centre) s_f.

        s_f = n / (F n_f |m_f|), where n is the number of tokens of the item, F that of its fields, n_f that of the
        tokens of f, and m_f their mean without the centre.

        `fields` is the number of the field of each token; None (pictures) means that all tokens are one field. A
        summary that a text tower puts before the tokens belongs to no field and gets unit length.
        """
        states = _exact(tokens.states) - self.centre
        members = _members(tokens, fields).to(states.dtype)
        counts = members.sum(dim=2)
        each = states.norm(dim=2)
        least = MIN_MEAN_SHARE * (members @ each[..., None])[..., 0]
        lengths = torch.maximum((members @ states).norm(dim=2), least.clamp(min=MIN_LENGTH))  # n_f |m_f|
        present = counts > 0
        share = counts.sum(dim=1, keepdim=True) / present.sum(dim=1, keepdim=True).clamp(min=1)
        scales = ((share / lengths * present)[:, None] @ members)[:, 0]
        alone = tokens.mask & ~members.bool().any(dim=1)
        scales = torch.where(alone, 1 / each.clamp(min=MIN_LENGTH), scales)
        return Tokens(states * scales[..., None], tokens.mask, tokens.summary)

    @staticmethod
    @torch.no_grad()
    def means(
        tokens: Tokens, fields: Int[Tensor, "batch positions"] | None = None
    ) -> Float[Tensor, "batch width"]:
        """Return the mean over the fields of the mean token of each field; the centre is the mean over the items."""
        states = _exact(tokens.states)
        members = _members(tokens, fields).to(states.dtype)
        counts = members.sum(dim=2, keepdim=True)
        means = members @ states / counts.clamp(min=1)
        mean: Tensor = means.sum(dim=1) / (counts > 0).sum(dim=1).clamp(min=1)
        return mean


def _exact(states: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
    """Cast tokens to at least float32, because towers may run in bf16."""
    return states.to(torch.promote_types(states.dtype, torch.float32))


def _members(
    tokens: Tokens, fields: Int[Tensor, "batch positions"] | None
) -> Bool[Tensor, "batch fields tokens"]:
    """Return which tokens belong to which field; padding and a summary before the tokens belong to none."""
    if fields is None:
        return tokens.mask[:, None]
    # A text has no more fields than tokens. On a CUDA device, reading the number of fields would have to wait for it.
    count = fields.shape[1] if fields.is_cuda else int(fields.max()) + 1
    numbers = torch.arange(count, device=fields.device)
    fields = F.pad(fields, (tokens.mask.shape[1] - fields.shape[1], 0), value=-1)
    return (fields[:, None] == numbers[:, None]) & tokens.mask[:, None]
