"""Outputs of the network for a batch of items in one modality, computed call by call or replayed from a CUDA graph."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from model.network.image_cache import Pictures
from model.network.inference.cuda_graphs import (
    LENGTH_STEP,
    MAX_RECORDED_TOKENS,
    Call,
    RecordedCalls,
    Recorder,
    bucket,
)
from model.network.inputs import PictureInput, TextInput, Tokens
from model.network.network import Network
from model.network.processor import Preprocessor
from model.network.relation_attention import RelationAttention, RelationContext, RelationView

Outputs = Callable[[Int[Tensor, " batch"]], tuple[Tensor, ...]]
"""Function that returns the outputs of `Pooling` for the items at the given positions."""


@dataclass(frozen=True)
class Pooling:
    """Pooling of tokens under all relations.

    If `projection` is given, the tokens themselves are also returned, in the joint space.
    """

    attention: RelationAttention
    relations: RelationView
    projection: Float[Tensor, "width dim"] | None

    def __call__(self, tokens: Tokens) -> tuple[Tensor, ...]:
        """Return the vectors `[items, relations, dim]` and, if asked, the tokens in half precision and their mask."""
        vectors: Tensor = self.attention(tokens, self.relations)
        if self.projection is None:
            return (vectors,)
        matrix = self.projection.to(self.relations.queries.dtype)
        return vectors, (tokens.states.to(matrix.dtype) @ matrix).half(), tokens.mask


class ItemGraphs:
    """CUDA graphs of the network's calls for new items, by modality; recorded anew after a change of the weights.

    Items are padded to a few batch sizes, and texts to a few lengths. Padding changes no vector beyond rounding.
    """

    def __init__(
        self, network: Network, preprocessor: Preprocessor, device: torch.device, recorder: Recorder
    ) -> None:
        self._network = network
        self._preprocessor = preprocessor
        self._device = device
        self._recorder = recorder
        self._context: RelationContext | None = None
        self._calls: dict[tuple[str, bool], RecordedCalls] = {}

    def of_texts(
        self, text: TextInput, context: RelationContext, pooling: Callable[[], Pooling], keep: bool
    ) -> Outputs:
        """Return the outputs of texts under the relations of `context`; `keep` tells whether tokens are returned."""

        def compute() -> Call:
            pooled = pooling()
            return lambda *parts: pooled(self._network.text_tokens(TextInput(*parts)))

        calls = self._recorded("text", keep, context, compute)

        def outputs(rows: Int[Tensor, " batch"]) -> tuple[Tensor, ...]:
            taken = text.take(rows)
            items = bucket(len(rows)) or len(rows)
            longest = -(-taken.ids.shape[1] // LENGTH_STEP) * LENGTH_STEP
            longest = max(taken.ids.shape[1], min(longest, self._preprocessor.max_tokens))
            padded = taken.padded(items, longest, self._preprocessor.padding_id).to(self._device)
            return _first(len(rows), calls(padded.ids, padded.mask, padded.fields))

        return outputs

    def of_pictures(
        self, pictures: Pictures, context: RelationContext, pooling: Callable[[], Pooling], keep: bool
    ) -> Outputs:
        """Return the outputs of pictures; see `of_texts`."""

        def compute() -> Call:
            pooled = pooling()
            return lambda *parts: pooled(self._network.image_tokens(PictureInput(*parts)))

        calls = self._recorded("image", keep, context, compute)

        def outputs(rows: Int[Tensor, " batch"]) -> tuple[Tensor, ...]:
            padded = pictures.take(rows).padded(bucket(len(rows)) or len(rows)).to(self._device)
            normalised = self._preprocessor.normalise(padded)
            return _first(len(rows), calls(normalised.pixels, normalised.grid))

        return outputs

    def _recorded(
        self, modality: str, keep: bool, context: RelationContext, compute: Callable[[], Call]
    ) -> Call:
        """Return the recorded calls of a modality for small batches, and plain calls for others."""
        if context is not self._context:
            self._calls.clear()
            self._context = context
        key = modality, keep
        if key not in self._calls:
            recordable = modality == "text" or self._network.backbone.records_pictures
            self._calls[key] = RecordedCalls(compute(), self._recorder if recordable else None)
        calls = self._calls[key]

        def call(*parts: Tensor) -> tuple[Tensor, ...]:
            items, length = parts[0].shape[:2]
            recorded = bucket(items) is not None and length <= MAX_RECORDED_TOKENS
            return calls(*parts) if recorded else calls.function(*parts)

        return call


def _first(items: int, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(output[:items] for output in outputs)
