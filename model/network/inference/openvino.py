"""Towers run by OpenVINO, an optional replacement for torch on a CPU: `pip install 'rcml[openvino]'`.

Each tower is traced on loading, for batches of any size and texts of any length. It is then compared with torch, and an
architecture that cannot be traced correctly is rejected. Wrong vectors are therefore never served.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model.errors import InputError
from model.network.backbones import Backbone
from model.network.inputs import PictureInput, TextInput, Tokens

try:
    import openvino
except ImportError:
    raise InputError("OpenVINO is not installed. Run `pip install 'rcml[openvino]'`.") from None

MIN_TRACE_COSINE = 0.99999
"""Minimum cosine between the same token from OpenVINO and from torch, both in fp32.

If the trace recorded a variable as a constant, the cosine is lower.
"""


class OpenVinoBackbone(Backbone):
    """Towers of `backbone` compiled by OpenVINO with their current weights; later changes have no effect.

    Raises:
        InputError: OpenVINO cannot run these towers.
    """

    runtime = "OpenVINO"

    def __init__(self, backbone: Backbone, texts: TextInput, pictures: PictureInput, bf16: bool) -> None:
        super().__init__(backbone.model)
        self._dim = backbone.dim
        self.precision = "bf16" if bf16 else "fp32"
        with torch.no_grad():
            self._projections = backbone.text_projection(), backbone.image_projection()
        text = _Traceable(
            backbone, lambda ids, mask: backbone.text_tokens(TextInput(ids, mask, torch.zeros_like(ids)))
        )
        image = _Traceable(backbone, lambda pixels, grid: backbone.image_tokens(PictureInput(pixels, grid)))
        self._text = _compile(text, (texts.ids, texts.mask), bf16)
        self._image = _compile(image, (pictures.pixels, pictures.grid), bf16)

    @property
    def dim(self) -> int:
        """Length d of every vector."""
        return self._dim

    def text_tokens(self, text: TextInput) -> Tokens:
        """Encode texts like the original backbone, in fp32."""
        return self._text(text.ids, text.mask)

    def image_tokens(self, pictures: PictureInput) -> Tokens:
        """Encode pictures like the original backbone, in fp32."""
        return self._image(pictures.pixels, pictures.grid)

    def text_projection(self) -> Float[Tensor, "width dim"]:
        """Return the projection P of texts in fp32."""
        return self._projections[0]

    def image_projection(self) -> Float[Tensor, "width dim"]:
        """Return the projection P of pictures in fp32."""
        return self._projections[1]


class _Traceable(nn.Module):
    """Tower as a module that can be traced: it owns the weights, takes tensors and returns the fields of `Tokens`."""

    def __init__(self, backbone: Backbone, tokens: Callable[[Tensor, Tensor], Tokens]) -> None:
        super().__init__()
        self._backbone = backbone
        self.tokens = tokens

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens = self.tokens(first, second)
        # The tower is traced with a batch of one. If a backbone calls len() on its input, the trace records the batch
        # size 1 as a constant, so the mask and the summary positions are expanded to the real batch size.
        rows = first.shape[0]
        return tokens.states, tokens.mask.expand(rows, -1), tokens.summary.expand(rows)


@torch.no_grad()
def _compile(
    tower: _Traceable, sample: tuple[Tensor, Tensor], bf16: bool
) -> Callable[[Tensor, Tensor], Tokens]:
    """Compile the tower with OpenVINO and check that it agrees with torch on `sample`."""
    expected = tower.tokens(*sample)
    try:
        with warnings.catch_warnings():
            # Torch warns that the trace may not generalise, which the comparison below checks.
            warnings.simplefilter("ignore")
            traced = openvino.convert_model(tower, example_input=tuple(part[:1] for part in sample))
        exact = _runner(traced, "f32")
        found = exact(*sample)
        run = _runner(traced, "bf16") if bf16 else exact
    except RuntimeError as error:
        raise _refusal(str(error)) from None
    same = torch.equal(found.mask, expected.mask) and torch.equal(found.summary, expected.summary)
    cosine = torch.cosine_similarity(found.states, expected.states, dim=-1)[expected.mask].min().item()
    if not same or cosine < MIN_TRACE_COSINE:
        raise _refusal(f"its tokens differ from those of torch; the lowest cosine is {cosine:.5f}")
    return run


def _runner(traced: Any, precision: str) -> Callable[[Tensor, Tensor], Tokens]:
    compiled = openvino.compile_model(traced, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    # The trace has no input for a tensor that the tower does not use (the grid of fixed-size pictures).
    names = {name for port in compiled.inputs for name in port.names}

    def run(first: Tensor, second: Tensor) -> Tokens:
        given = {"first": first.numpy(), "second": second.numpy()}
        found = compiled({name: array for name, array in given.items() if name in names})
        states, mask, summary = (torch.from_numpy(found[place]) for place in range(3))
        return Tokens(states, mask, summary)

    return run


def _refusal(reason: str) -> InputError:
    return InputError(
        f"OpenVINO cannot run the towers of this checkpoint ({reason.splitlines()[0]}). Use --engine torch."
    )
