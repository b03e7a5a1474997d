"""Inputs of the network for the items of a part: texts and pictures, or the tokens of frozen towers."""

from collections.abc import Sequence
from pathlib import Path

import torch

from model.config import TrainConfig
from model.data.edge_table import EdgeTable
from model.data.prepared_data import Prepared
from model.encoder.encoder import Encoder
from model.errors import InputError
from model.network.image_cache import PictureFiles, Pictures
from model.network.inputs import TextInput
from model.network.pictures.decoded_pictures import DecodedPictures
from model.network.token_cache import StoredTokens, keep_tokens
from model.records import Edge, Split

from .batches import Part
from .distributed import ProcessGroup


class PartInputs:
    """Reader of the items of prepared data; decoded pictures and tokens are kept in the folder of the run."""

    def __init__(
        self, config: TrainConfig, prepared: Prepared, encoder: Encoder, group: ProcessGroup, folder: Path
    ) -> None:
        self._prepared = prepared
        self._encoder = encoder
        self._group = group
        self._folder = folder
        self._picture_cache = config.picture_cache
        self._decoded_pictures = config.decoded_pictures or folder / "pictures"
        self.frozen = config.tune == "frozen"

    def part(self, rows: Sequence[int], split: Split) -> Part:
        """Read the items at `rows`, and the edges between them in `split`.

        Raises:
            InputError: the split has no edges, or the disk does not have enough free space.
        """
        edges = [edge for edge in self._prepared.edges if edge.split == split]
        if not edges:
            share = "" if split == Split.TRAIN else " with --validation-share 0.2, or with --min-support 2"
            raise InputError(
                f"{self._prepared.path} has no pairs in the {split} split. Use more data, or relax the thresholds of "
                f"`rcml prepare`{share}."
            )
        preprocessor = self._encoder.preprocessor
        items = [self._prepared.items[row] for row in rows]
        paths = [self._prepared.path / item.picture for item in items]
        text = preprocessor.tokenize([item.text for item in items])
        table = self.edge_table(edges, rows)
        # Other ranks wait until the first rank has decoded or encoded the items, and then read its files.
        if not self._group.first:
            self._group.wait()
        pictures: Pictures = PictureFiles(preprocessor, paths)
        if self._picture_cache and not self.frozen:
            pictures = self._decoded(paths)
        part = Part(text, pictures, table)
        if self.frozen:
            part = Part(self._text_tokens(text, split), self._image_tokens(pictures, split), table)
        if self._group.first:
            self._group.wait()
        return part

    def _decoded(self, paths: Sequence[Path]) -> Pictures:
        """Return the pictures at `paths` from the cache, which the first rank fills."""
        data = self._prepared
        cache = DecodedPictures.open(
            self._decoded_pictures, data.manifest.digest, self._encoder.preprocessor.decoder, data.pictures
        )
        if self._group.first:
            cache.fill(paths)
        return cache.part(paths)

    def edge_table(self, edges: Sequence[Edge], rows: Sequence[int]) -> EdgeTable:
        """Return `edges` with their items as positions in `rows`, and their relations as positions in the data."""
        return EdgeTable.of(
            list(edges),
            {self._prepared.items[row].item_id: place for place, row in enumerate(rows)},
            {relation.relation_id: place for place, relation in enumerate(self._prepared.relations)},
        )

    def _text_tokens(self, text: TextInput, split: Split) -> StoredTokens:
        network, device = self._encoder.network.eval(), self._group.device
        extra = len(network.text_tokens(text.take(torch.tensor([0])).to(device)).mask[0])
        extra -= int(text.mask[0].sum())  # a tower may put a summary before the tokens
        return keep_tokens(
            self._folder / f"{split}-text.npy",
            len(text),
            text.mask.shape[1] + max(extra, 0),
            lambda rows: network.text_tokens(text.take(rows).to(device)),
            f"encoding the texts of the {split} items",
        )

    def _image_tokens(self, pictures: Pictures, split: Split) -> StoredTokens:
        network, device = self._encoder.network.eval(), self._group.device
        normalise = self._encoder.preprocessor.normalise
        first = network.image_tokens(normalise(pictures.take(torch.tensor([0])).to(device)))
        return keep_tokens(
            self._folder / f"{split}-image.npy",
            len(pictures),
            first.states.shape[1],
            lambda rows: network.image_tokens(normalise(pictures.take(rows).to(device))),
            f"encoding the pictures of the {split} items",
        )
