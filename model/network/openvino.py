"""Towers run by OpenVINO, an optional stand-in on a CPU: `pip install 'rcml[openvino]'`.

Each tower is traced when it is opened, for batches of any size and texts of any length, and compared with torch
before it is used: an architecture that a trace cannot hold (SigLIP 2 loops over its pictures) is refused, and
no wrong vector is ever served.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model.errors import InputError

from .backbones import Backbone
from .inputs import PictureInput, TextInput, Tokens

try:
    import openvino
except ImportError:
    raise InputError("OpenVINO is not installed: run `pip install 'rcml[openvino]'`.") from None

MIN_TRACE_COSINE = 0.99999
"""Of a token by OpenVINO to the same by torch, both in fp32: what a trace mistook for a constant costs more."""


class OpenVinoBackbone(Backbone):
    """The towers of `backbone` with the weights as they are now; it does not see them change.

    Raises:
        InputError: OpenVINO cannot run them.
    """

    def __init__(self, backbone: Backbone, texts: TextInput, pictures: PictureInput, bf16: bool) -> None:
        super().__init__(backbone.model)
        self._dim = backbone.dim
        with torch.no_grad():
            self._projections = backbone.text_projection(), backbone.image_projection()
        text = _Traceable(backbone, lambda ids, mask: backbone.text_tokens(TextInput(ids, mask)))
        image = _Traceable(backbone, lambda pixels, grid: backbone.image_tokens(PictureInput(pixels, grid)))
        self._text = _compile(text, (texts.ids, texts.mask), bf16)
        self._image = _compile(image, (pictures.pixels, pictures.grid), bf16)

    @property
    def dim(self) -> int:
        return self._dim

    def text_tokens(self, text: TextInput) -> Tokens:
        """Encode texts as the plain backbone does, fp32."""
        return self._text(text.ids, text.mask)

    def image_tokens(self, pictures: PictureInput) -> Tokens:
        """Encode pictures as the plain backbone does, fp32."""
        return self._image(pictures.pixels, pictures.grid)

    def text_projection(self) -> Float[Tensor, "width dim"]:
        """Return P of texts, fp32."""
        return self._projections[0]

    def image_projection(self) -> Float[Tensor, "width dim"]:
        """Return P of pictures, fp32."""
        return self._projections[1]


class _Traceable(nn.Module):
    """A tower as a trace wants it: a module with the weights, tensors in, the parts of `Tokens` out."""

    def __init__(self, backbone: Backbone, tokens: Callable[[Tensor, Tensor], Tokens]) -> None:
        super().__init__()
        self._backbone = backbone
        self.tokens = tokens

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens = self.tokens(first, second)
        # Where a backbone counts its inputs with len(), the trace of one input holds one row: it is spread over
        # the batch here.
        rows = first.shape[0]
        return tokens.states, tokens.mask.expand(rows, -1), tokens.summary.expand(rows)


@torch.no_grad()
def _compile(
    tower: _Traceable, sample: tuple[Tensor, Tensor], bf16: bool
) -> Callable[[Tensor, Tensor], Tokens]:
    """Compile the tower with OpenVINO, and check that it agrees with torch on `sample`."""
    expected = tower.tokens(*sample)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a trace holds for inputs like its sample alone
            traced = openvino.convert_model(tower, example_input=tuple(part[:1] for part in sample))
        exact = _runner(traced, "f32")
        found = exact(*sample)
        run = _runner(traced, "bf16") if bf16 else exact
    except RuntimeError as error:
        raise _refusal(str(error)) from None
    same = torch.equal(found.mask, expected.mask) and torch.equal(found.summary, expected.summary)
    cosine = torch.cosine_similarity(found.states, expected.states, dim=-1)[expected.mask].min().item()
    if not same or cosine < MIN_TRACE_COSINE:
        raise _refusal(f"its tokens differ from those of torch, at a cosine of {cosine:.5f}")
    return run


def _runner(traced: Any, precision: str) -> Callable[[Tensor, Tensor], Tokens]:
    compiled = openvino.compile_model(traced, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    # An input that a tower does not look at (the grid of pictures of one size) is none of the trace's.
    names = {name for port in compiled.inputs for name in port.names}

    def run(first: Tensor, second: Tensor) -> Tokens:
        given = {"first": first.numpy(), "second": second.numpy()}
        found = compiled({name: array for name, array in given.items() if name in names})
        states, mask, summary = (torch.from_numpy(found[place]) for place in range(3))
        return Tokens(states, mask, summary)

    return run


def _refusal(reason: str) -> InputError:
    return InputError(
        f"OpenVINO cannot run the towers of this checkpoint ({reason.splitlines()[0]}); use --engine torch."
    )
