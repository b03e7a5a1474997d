"""Linear layers in bf16 on a CPU, with weights stored in the order that oneDNN multiplies them in.

`nn.Linear` leaves its weights in rows, and oneDNN copies them into blocks at every call. For a single text, the copy
takes a third of the time of the product. The result is bitwise the same.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

BLOCK_ROWS = 32
"""Number of rows of the input that oneDNN is told when it chooses the order; other numbers give the same order."""


class PackedLinear(nn.Module):
    """Linear layer with reordered weights, which cannot be saved."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self._packed: Any = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), BLOCK_ROWS)
        self._bias = None if layer.bias is None else layer.bias.detach()

    def forward(self, states: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        """Multiply by the weights and add the bias."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(states, self._packed, self._bias, "none", [], "")
        return product


def packs_weights() -> bool:
    """Return whether this version of torch was built with oneDNN and has both operations, which are internal."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)


def replace_layers(model: nn.Module, layer: type[nn.Module]) -> int:
    """Replace the linear layers of the repeated layers of `model`, and return their number.

    Layers outside of these (patches, heads, projections) are used by their weights too.
    """
    return sum(_replace(stack, layer) for stack in model.modules() if isinstance(stack, nn.ModuleList))


def _replace(parent: nn.Module, layer: type[nn.Module]) -> int:
    count = 0
    for name, child in parent.named_children():
        if type(child) is nn.Linear:  # a subclass may be used by its weights alone
            setattr(parent, name, layer(child))
            count += 1
        else:
            count += _replace(child, layer)
    return count
