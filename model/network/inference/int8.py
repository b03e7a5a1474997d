"""Towers in int8 on a CPU without bf16: the linear layers of the repeated layers multiply 8-bit integers.

Each token has its own scale, so the vector of an item does not depend on the other items of its batch. AVX2 without
VNNI adds the products of two pairs in 16 bits, with saturation. Activations therefore have 8 bits and weights 7: two
products of at most 255 and 64 fit into 16 bits.
"""

import copy
import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model.errors import InputError
from model.network.backbones import Backbone
from model.network.inputs import PictureInput, TextInput, Tokens

from .packed_linear import replace_layers

ACTIVATION_LEVELS = 127
"""Absolute value of the largest activation of a token; the zero point of the unsigned activations is one more."""

WEIGHT_LEVELS = 64
"""Absolute value of the largest weight of an output in int8."""

LEAST_SCALE = 1e-12
"""Minimum largest value that a token or the weights of an output are divided by."""

MIN_INT8_COSINE = 0.99
"""Minimum cosine between the mean token of a sample in int8 and in fp32, if int8 is requested."""

MIN_AUTO_COSINE = 0.999
"""The same if int8 was not requested: an index and its server may then have different precisions."""


class Int8Linear(nn.Module):
    """Linear layer with one scale for each output of the weights and one for each token (FBGEMM)."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach()
        scales = (weight.abs().amax(dim=1) / WEIGHT_LEVELS).clamp(min=LEAST_SCALE).double()
        with warnings.catch_warnings():
            # Torch warns that it will remove quantized tensors. `inference_backbone` checks on loading what this
            # version of torch does.
            warnings.simplefilter("ignore")
            zeros = torch.zeros(len(weight), dtype=torch.int64)
            quantized = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        self._packed: Any = torch.ops.quantized.linear_prepack(quantized, None)
        self._bias = None if layer.bias is None else layer.bias.detach()

    def forward(self, states: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        """Multiply in int8, scaled by the largest value of each token, and add the bias in fp32."""
        rows = states.flatten(0, -2)
        # abs and amax are vectorised; vector_norm(inf) and aminmax take four times as long.
        scale = rows.abs().amax(dim=1, keepdim=True).clamp_(min=LEAST_SCALE)
        product: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows / scale, 1 / ACTIVATION_LEVELS, ACTIVATION_LEVELS + 1, self._packed
        )
        product = product * scale if self._bias is None else torch.addcmul(self._bias, product, scale)
        return product.view(*states.shape[:-1], product.shape[-1])


def computes_in_int8() -> bool:
    """Return whether torch multiplies int8 matrices faster than fp32 on this CPU (FBGEMM with AVX2 or AVX-512)."""
    fbgemm = "fbgemm" in torch.backends.quantized.supported_engines
    return fbgemm and torch.backends.cpu.get_cpu_capability() in {"AVX2", "AVX512"}


@torch.no_grad()
def in_int8(backbone: Backbone, texts: TextInput, pictures: PictureInput, least: float) -> Backbone:
    """Return a copy of `backbone` in int8, compared with `backbone` in fp32 on samples.

    Only the linear layers of the repeated layers change (`replace_layers`).

    Raises:
        InputError: this version of torch or this processor has no such product, or the cosine between the mean token
            of a sample in int8 and in fp32 is below `least`.
    """
    other = copy.deepcopy(backbone).fold_activation()
    try:
        if not replace_layers(other.model, Int8Linear):
            raise InputError(
                "The towers have no linear layers that int8 would speed up. Use --precision fp32."
            )
        pairs = (
            (other.text_tokens(texts), backbone.text_tokens(texts)),
            (other.image_tokens(pictures), backbone.image_tokens(pictures)),
        )
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        raise InputError(
            f"The towers cannot run in int8 ({str(error).splitlines()[0]}). Use --precision fp32."
        ) from None
    cosine = min(_least_cosine(found, expected) for found, expected in pairs)
    if not cosine >= least:
        raise InputError(
            f"The towers are not exact enough in int8: the lowest cosine to fp32 is {cosine:.4f}, and {least} is "
            "required. Use --precision fp32."
        )
    other.precision = "int8"
    return other


def _least_cosine(found: Tokens, expected: Tokens) -> float:
    """Return the minimum cosine between the mean tokens of both, which an even attention would pool."""
    mask = expected.mask.to(expected.states.dtype)[:, None]
    return float(torch.cosine_similarity(mask @ found.states, mask @ expected.states, dim=-1).min())
