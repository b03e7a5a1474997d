"""Hashes of stored pictures, which find the same picture under two items, also after another compression or size.

The digest finds equal files. The difference hash (dHash) has one bit for each of 16 x 16 places: whether the picture
gets clearly brighter there, from left to right. Two pictures whose hashes differ in a few bits, and whose mean colours
are close, are the same picture. A drawing in another colour is another picture, and a picture with hardly any
structure, such as a plain area, has no difference hash.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Int16, UInt64
from numpy import ndarray
from PIL import Image

from model.console import progress

SIDE = 16
"""Number of places per row and column of the difference hash."""

CLEARLY = 4
"""Minimum difference of two neighbouring places, in grey levels, so that noise of the compression gives no bits."""

MIN_BITS = 16
"""Minimum number of bits that are set; a picture with fewer has too little structure to be recognised by it."""

MAX_DISTANCE = 7
"""Maximum number of different bits, of 256, of two copies of a picture."""

MAX_COLOUR_DIFFERENCE = 6
"""Maximum difference of the mean red, green and blue of two copies of a picture, in levels of 255."""

BANDS = 8
"""Number of parts of the hash, more than `MAX_DISTANCE`: two copies agree in one part at least (pigeonhole)."""

NEIGHBOURS = 32
"""Number of next hashes, in order, that each hash is compared with among those that agree in a part."""

SPREAD = np.random.default_rng(0).permutation(SIDE * SIDE)
"""Order of the places in the hash: every part has places of the whole picture, since margins are often empty."""


@dataclass(frozen=True)
class PictureHashes:
    """Hashes of pictures, one row each; `hashed` says which pictures have a difference hash."""

    digests: tuple[bytes, ...]
    bits: UInt64[ndarray, "pictures 4"]
    colours: Int16[ndarray, "pictures 3"]
    hashed: Bool[ndarray, " pictures"]

    @classmethod
    def of(cls, paths: Sequence[Path]) -> "PictureHashes":
        """Read the pictures at `paths`, which `rcml prepare` has stored, and hash them."""
        with ThreadPoolExecutor() as pool:
            found = list(progress(pool.map(_hashed, paths), "comparing pictures", len(paths)))
        places = np.array([bits for _, bits, _ in found], dtype=bool).reshape(-1, SIDE * SIDE)
        return cls(
            digests=tuple(digest for digest, _, _ in found),
            bits=np.ascontiguousarray(np.packbits(places[:, SPREAD], axis=1)).view(np.uint64),
            colours=np.array([colour for _, _, colour in found], dtype=np.int16).reshape(-1, 3),
            hashed=places.sum(axis=1) >= MIN_BITS,
        )

    def copies(self) -> Int[ndarray, "pairs 2"]:
        """Return pairs of rows whose pictures are copies of each other by the difference hash, each pair once.

        Rows of equal hashes are chained, and different hashes are compared only if they agree in one of `BANDS` parts
        (locality-sensitive hashing by bit sampling, Indyk & Motwani 1998). The cost grows with the number of pictures
        and not with that of their pairs. If more than `NEIGHBOURS` hashes agree in a part, a few pairs may be missed.
        """
        rows = np.flatnonzero(self.hashed)
        hashes, first, which = np.unique(self.bits[rows], axis=0, return_index=True, return_inverse=True)
        order = np.argsort(which.ravel(), kind="stable")
        same = np.flatnonzero(np.diff(which.ravel()[order]) == 0)
        pairs = [np.column_stack([rows[order[same]], rows[order[same + 1]]])]
        as_bytes = hashes.view(np.uint8).reshape(len(hashes), 4 * BANDS)
        for band in range(BANDS):
            part = np.ascontiguousarray(as_bytes[:, 4 * band : 4 * band + 4]).view(np.uint32).ravel()
            ranked = np.lexsort((*hashes.T, part))
            for step in range(1, NEIGHBOURS + 1):
                a, b = ranked[:-step], ranked[step:]
                agree = part[a] == part[b]
                if not agree.any():
                    break
                a, b = a[agree], b[agree]
                near = np.bitwise_count(hashes[a] ^ hashes[b]).sum(axis=1) <= MAX_DISTANCE
                pairs.append(np.column_stack([rows[first[a[near]]], rows[first[b[near]]]]))
        found = np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)
        difference = np.abs(self.colours[found[:, 0]] - self.colours[found[:, 1]]).max(axis=1)
        return np.asarray(found[difference <= MAX_COLOUR_DIFFERENCE])


def _hashed(path: Path) -> tuple[bytes, Bool[ndarray, " places"], Int16[ndarray, "3"]]:
    content = path.read_bytes()
    with Image.open(path) as picture:
        picture.draft("RGB", (8 * SIDE, 8 * SIDE))  # a large JPEG is decoded at a fraction of its size
        small = picture.convert("RGB").resize((SIDE + 1, SIDE), Image.Resampling.BILINEAR)
    grey = np.asarray(small.convert("L"), dtype=np.int16)
    brighter = np.diff(grey, axis=1) >= CLEARLY
    colour = np.asarray(small, dtype=np.float64).mean(axis=(0, 1))
    return blake2b(content, digest_size=16).digest(), brighter.ravel(), colour.astype(np.int16)
