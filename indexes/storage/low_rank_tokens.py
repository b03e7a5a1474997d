"""Low-rank token projections (PCA), which select the candidates that are then scored under a free-text relation.

    tokens/
      text.codes.npy image.codes.npy     int8 [tokens, components]: the projections C, in the order of the tokens, each
                                         component divided by its scale and rounded
      text.scale.npy image.scale.npy     float32 [components]: the scales
      text.length.npy image.length.npy   float32 [tokens]: the lengths of the tokens before the projection
      text.basis.npy image.basis.npy     float32 [dim, components]: the principal directions B of the tokens
      text.sketch.npy image.sketch.npy   float32 [tokens, components]: C, in generations of earlier development
                                         versions, which have no codes, scales and lengths

The tokens H (eq. 3 of the paper) are approximately C B^T, so eq. 4-6 can be evaluated on C: the relevance of a token
is q H^T = (q B) C^T, and pooled projections p map to p B^T (W_V^T W_o) in the joint space (`estimates.py`). Estimating
the scores of all items this way costs a fraction of reading their tokens. Only the best candidates are then scored
exactly from the tokens. The measurements are in docs/decisions.md.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int8, Int64
from numpy import ndarray

from indexes.vectors.faiss_threads import thread_per_core
from model.embeddings.encoding import TokenRows
from model.embeddings.free_text import MIN_LENGTH
from model.worker_pools import ahead

from .arrays import ArrayWriter, map_array, read_array, save_array

BASIS_SAMPLE_TOKENS = 20_000
"""Number of tokens sampled to find the principal directions and the scales."""

TOKENS_PER_CHUNK = 16_384
"""Number of tokens that a thread projects at a time."""

MAX_WRITING_THREADS = 16
"""Maximum number of threads that project tokens."""

MAX_CODE = 127
"""Greatest absolute value of a code."""


@dataclass(frozen=True)
class LowRankTokens:
    """Low-rank token projections of all items in one modality.

    The projection of a token is its row of `codes` times `scale`, component by component. `lengths` is None in a
    generation without them.
    """

    codes: Int8[ndarray, "tokens components"] | Float32[ndarray, "tokens components"]
    starts: Int64[ndarray, " bounds"]
    basis: Float32[ndarray, "dim components"]
    scale: Float32[ndarray, " components"]
    lengths: Float32[ndarray, " tokens"] | None

    @classmethod
    def open(cls, folder: Path, name: str, starts: Int64[ndarray, " bounds"]) -> "LowRankTokens":
        """Open the projections that `write_low_rank_tokens` of this version or an earlier one wrote.

        Raises:
            ArtifactError: a file is damaged.
        """
        basis = read_array(folder / f"{name}.basis.npy", "<f4", 2)
        if not (folder / f"{name}.codes.npy").exists():
            states = map_array(folder / f"{name}.sketch.npy", "<f4", 2)
            return cls(states, starts, basis, np.ones(basis.shape[1], np.float32), None)
        codes = map_array(folder / f"{name}.codes.npy", "|i1", 2)
        scale = read_array(folder / f"{name}.scale.npy", "<f4", 1)
        return cls(codes, starts, basis, scale, map_array(folder / f"{name}.length.npy", "<f4", 1))

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.starts) - 1

    def states(self, first: int, last: int) -> Float32[ndarray, "tokens components"]:
        """Return the codes of the items from `first` to `last` (exclusive) in single precision."""
        return np.asarray(self.codes[self.starts[first] : self.starts[last]], np.float32, order="C")

    def divisors(
        self, first: int, last: int, states: Float32[ndarray, "tokens components"]
    ) -> Float32[ndarray, " tokens"]:
        """Return the lengths of the tokens of the same items, at least `MIN_LENGTH`; `states` are their codes."""
        if self.lengths is None:
            found: ndarray = np.linalg.norm(states * self.scale, axis=1)
        else:
            found = self.lengths[self.starts[first] : self.starts[last]]
        return np.asarray(np.maximum(found, MIN_LENGTH), np.float32)


def write_low_rank_tokens(folder: Path, name: str, tokens: TokenRows, components: int) -> None:
    """Write the low-rank projections of `tokens`, which are stored in `folder` under the same `name`.

    They have `components` components, or all if the tokens have fewer. Existing projections are replaced.

    Raises:
        OSError: the disk is full or failing; `errno` has the reason.
    """
    count, dim = tokens.states.shape
    drawn = np.sort(np.random.default_rng(0).permutation(count)[:BASIS_SAMPLE_TOKENS])
    sample = np.asarray(tokens.states[drawn], np.float64)
    components = min(components, dim)
    basis = np.linalg.eigh(sample.T @ sample)[1][:, ::-1][:, :components].astype(np.float32)
    scale = np.abs(sample @ basis).max(axis=0, initial=1e-12).astype(np.float32) / MAX_CODE
    save_array(folder / f"{name}.basis.npy", np.ascontiguousarray(basis))
    save_array(folder / f"{name}.scale.npy", scale)
    lengths = np.empty(count, np.float32)

    def code(start: int) -> Int8[ndarray, "tokens components"]:
        chunk = tokens.states[start : start + TOKENS_PER_CHUNK].astype(np.float32)
        lengths[start : start + TOKENS_PER_CHUNK] = np.linalg.norm(chunk, axis=1)
        codes: ndarray = np.rint(chunk @ (basis / scale)).clip(-MAX_CODE, MAX_CODE).astype(np.int8)
        return codes

    starts = range(0, count, TOKENS_PER_CHUNK)
    with (
        ArrayWriter(folder / f"{name}.codes.npy", components, "|i1") as file,
        thread_per_core(MAX_WRITING_THREADS) as pool,
    ):
        for _, some in ahead(pool, code, starts, 2 * MAX_WRITING_THREADS):
            file.append(some)
    save_array(folder / f"{name}.length.npy", lengths)
