"""Encoder of items: a trained network that turns texts and pictures into unit vectors under every relation.

`rcml index`, `rcml evaluate` and the service load an encoder from a checkpoint. The trainer uses an encoder to validate
during training and to write the checkpoint at the end. The methods that load, save and push have the same names as in
Hugging Face libraries.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import numpy as np
import torch
from jaxtyping import Float16, Float32, Int
from numpy import ndarray
from PIL import Image
from torch import Tensor

from model.artifact import Draft, write_artifact
from model.checkpoint.calibration import UNCALIBRATED, Calibration
from model.checkpoint.checkpoint import write_contents
from model.checkpoint.hub import push
from model.checkpoint.training_metrics import TrainingMetrics
from model.checkpoint.validity import ValidityHead
from model.config import Device, TowerEngine, TowerPrecision
from model.embeddings.attention_entropy import AttentionEntropy
from model.embeddings.attention_map import Attention
from model.embeddings.encoder_protocol import PictureFolder
from model.embeddings.encoding import Encoding, ItemTokens, TokenRows
from model.embeddings.free_text import FreeTextRelation
from model.errors import InputError
from model.network.devices import choose_device
from model.network.image_cache import PictureFiles, Pictures, load_pictures
from model.network.inference.cpu_threads import one_thread_if_small
from model.network.inference.cuda_graphs import CudaRecorder, Recorder
from model.network.inference.precision import inference_backbone
from model.network.inputs import PictureInput, TextInput, Tokens
from model.network.network import Network
from model.network.pictures.decoding_pool import DecodingPool
from model.network.processor import Preprocessor
from model.network.relation_attention import RelationContext
from model.network.token_cache import StoredTokens, shared_batches
from model.records import Relation

from .explain import explain, relative_entropy
from .item_outputs import ItemGraphs, Outputs, Pooling
from .item_reader import PoolReader, open_pool
from .read_relation import read_free_text, relation_context, to_numpy
from .save_load import Source, load_network, locate, write_network, write_processors

BATCH_ITEMS = 128
"""Number of items encoded in one batch."""


class Encoder:
    """Trained network that encodes items, including new items, under the relations of its checkpoint."""

    def __init__(
        self,
        network: Network,
        preprocessor: Preprocessor,
        relations: Sequence[Relation],
        device: torch.device,
        recorder: Recorder | None = None,
    ) -> None:
        """Encode with `network` on `device`; a `recorder` makes CUDA graphs of the calls for few items."""
        self._network = network.to(device)
        self._preprocessor = preprocessor
        self._device = device
        self.relations = tuple(relations)
        self._graphs = None if recorder is None else ItemGraphs(network, preprocessor, device, recorder)
        self._known: tuple[int, RelationContext] | None = None
        self._centre: Tensor | None = None
        self._source: Source | None = None
        self._parameters = sum(weight.numel() for weight in network.parameters())

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        device: Device = "auto",
        revision: str | None = None,
        precision: TowerPrecision = "fp32",
        engine: TowerEngine = "torch",
    ) -> Self:
        """Load a checkpoint from a folder or from the Hugging Face Hub (`owner/name`).

        A `Path` always means a folder. A string means a Hub name only if it has the form `owner/name` and no local file
        or folder named `owner` exists. `revision` is a branch, tag or commit on the Hub. `precision` and `engine` apply
        to the towers (`model/network/inference/precision.py`). An encoder loaded in bf16 or int8 cannot be saved.

        Raises:
            ArtifactError: the checkpoint is missing or damaged, or its weights do not fit its network.
            InputError: CUDA is requested but unavailable, `revision` is given for a folder, or the engine is not
                installed or cannot run the towers.
        """
        path = locate(source, revision)
        opened = Source.open(path)
        network, preprocessor, place = load_network(path), Preprocessor.load(path), choose_device(device)
        network.backbone = inference_backbone(network.backbone, preprocessor, precision, engine, place)
        graphs = place.type == "cuda" and engine in ("auto", "cuda-graphs")
        recorder = CudaRecorder() if graphs else None
        encoder = cls(network, preprocessor, opened.checkpoint.relations, place, recorder)
        encoder._source = opened
        return encoder

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a complete checkpoint with the current weights to `folder`.

        The options, the validity head, the calibration, the figures and the model card are copied from the loaded
        checkpoint. If the weights have changed since loading, the loaded checkpoint becomes a parent of the new one.
        If they have not changed, the new checkpoint is byte for byte the same as the loaded one.

        Raises:
            InputError: this encoder was not loaded from a checkpoint, or its weights are not float32.
            ArtifactError: `folder` contains something other than an artifact, or the model card is not UTF-8 text.
        """
        if self._source is None:
            raise InputError(
                "This encoder was not loaded from a checkpoint, so it has no figures and no validity head to "
                "save. Open a draft with `write_artifact` and pass both to `Encoder.write`."
            )
        loaded = self._source.checkpoint
        with write_artifact(Path(folder), "checkpoint", loaded.config, loaded.manifest.parents) as draft:
            self.write(draft, loaded.validity, loaded.metrics, self._source.card, loaded.calibration)
            if not self._source.has_weights_of(draft):
                draft.parents["checkpoint"] = loaded.manifest.digest

    def push_to_hub(
        self,
        repo_id: str,
        private: bool | None = None,
        commit_message: str = "Upload a checkpoint of rcml",
    ) -> str:
        """Push the checkpoint to the repository `repo_id` (`owner/name`) on the Hub, and return the URL of the commit.

        The commit contains the same files as `save_pretrained` writes. If the repository does not exist, it is created,
        and `private` sets its visibility. None selects the default visibility of the repository owner. The token is
        taken from `hf auth login` or from `HF_TOKEN`.

        Raises:
            InputError: the encoder cannot be saved (see `save_pretrained`), or the Hub cannot be reached or rejects the
                push.
        """
        with TemporaryDirectory() as folder:
            checkpoint = Path(folder) / "checkpoint"
            self.save_pretrained(checkpoint)
            return push(checkpoint, repo_id, private, commit_message)

    def write(
        self,
        draft: Draft,
        validity: ValidityHead,
        metrics: TrainingMetrics,
        card: str,
        calibration: Calibration = UNCALIBRATED,
    ) -> None:
        """Write the current network and the given parts into the draft of a checkpoint.

        Raises:
            InputError: the weights are not float32.
        """
        write_network(draft, self.network)
        write_processors(draft, self.preprocessor, self._source)
        if self._source is not None and self._source.has_weights_of(draft):
            # Keep the stored vectors: on another machine, newly encoded vectors might differ in the last bit.
            vectors = self._source.checkpoint.relation_vectors
        else:
            # Encode the relations again, because torch does not count the weight updates of a fused optimizer.
            self._known = None
            vectors = self.relation_vectors
        write_contents(draft.path, self.relations, vectors, validity, metrics, card, calibration)
        draft.counts.update(
            parameters=sum(weight.numel() for weight in self.network.parameters()),
            relations=len(self.relations),
            dim=self.dim,
        )

    @property
    def network(self) -> Network:
        """Network, for inspection or further training."""
        return self._network

    @property
    def preprocessor(self) -> Preprocessor:
        """Tokenizer and image processor of the network."""
        return self._preprocessor

    @property
    def dim(self) -> int:
        """Length of every vector."""
        return self.network.backbone.dim

    @property
    def device(self) -> str:
        """Human-readable name of the device that the network runs on."""
        if self._device.type == "cuda":
            return f"cuda ({torch.cuda.get_device_name(self._device)})"
        return self._device.type

    @property
    def towers(self) -> str:
        """Precision and library of the towers in words, with the reason if `auto` chose them."""
        return self.network.backbone.towers + ("" if self._graphs is None else ", few items by CUDA graphs")

    def with_relations(self, relations: Sequence[Relation]) -> Self:
        """Return an encoder with the same network that encodes items under `relations` instead.

        With centred conditioning, the centre stays that of the trained relations, as for free-text relations.
        """
        other = type(self)(self.network, self.preprocessor, relations, self._device)
        other._centre = self.context().centre
        other.context()
        return other

    @property
    def relation_vectors(self) -> Float32[ndarray, "relations dim"]:
        """Vectors h_E of all relations, not normalised."""
        return to_numpy(self.context().vectors)

    @torch.inference_mode()
    def context(self) -> RelationContext:
        """Encode the relations with the current weights; the result is cached until the weights change."""
        version = self.network.version
        if self._known is None or self._known[0] != version:
            context = relation_context(
                self.network, self.preprocessor, self.relations, self._device, self._centre
            )
            self._known = (version, context)
        return self._known[1]

    def encode_items(self, texts: Sequence[str], pictures: Sequence[Image.Image]) -> Encoding:
        """Encode items into unit vectors under every relation, float32 `[items, relations, dim]` in each modality."""
        return self.read_items(texts, pictures)()

    def read_items(
        self, texts: Sequence[str], pictures: Sequence[Image.Image | None], tokens: bool = False
    ) -> Callable[[], Encoding]:
        """Tokenize texts and decode pictures, and return a function that encodes them; see `ItemEncoder.read_items`."""
        pictured = [row for row, picture in enumerate(pictures) if picture is not None]
        room = self.preprocessor.blank(len(pictured))
        for place, row in enumerate(pictured):
            picture = pictures[row]
            assert picture is not None
            self.preprocessor.decode(picture, room, place)
        return partial(self._encode_batch, self.preprocessor.tokenize(texts), room, pictured, tokens)

    @contextmanager
    def open_reader(self, folder: PictureFolder, batch_size: int = BATCH_ITEMS) -> Iterator[PoolReader]:
        """Open a reader of items whose pictures are files; see `ItemEncoder.open_reader`."""
        with open_pool(self.preprocessor, self._device, folder, batch_size) as pool:
            yield self.reader(pool)

    def reader(self, pool: DecodingPool) -> PoolReader:
        """Return a reader of items whose pictures `pool` decodes."""
        return PoolReader.of(self.preprocessor, self._device, self._encode_batch, pool)

    def _encode_batch(
        self, text: TextInput, pictures: PictureInput, pictured: Sequence[int], tokens: bool
    ) -> Encoding:
        """Encode items; picture i belongs to item `pictured[i]`, and the other items have none."""
        with one_thread_if_small(self._parameters, len(text), self._device):
            text_vectors, text_tokens = self._encode_text(text, tokens)
            found, image_tokens = self._encode_pictures(pictures, tokens)
        image_vectors = np.zeros_like(text_vectors)
        image_vectors[pictured] = found
        share = self.network.config.text_share
        if text_tokens is None or image_tokens is None:
            return Encoding(text_vectors, image_vectors, None, share)
        counts = np.zeros(len(text), np.int64)
        counts[pictured] = np.diff(image_tokens.starts)
        image_tokens = TokenRows(image_tokens.states, np.append(0, np.cumsum(counts)))
        return Encoding(text_vectors, image_vectors, ItemTokens(text_tokens, image_tokens), share)

    def encode_inputs(self, text: TextInput | StoredTokens, pictures: Pictures | StoredTokens) -> Encoding:
        """Encode items from tokenized texts and decoded pictures, or from their tokens; see `encode_items`."""
        share = self.network.config.text_share
        return Encoding(self._encode_text(text)[0], self._encode_pictures(pictures)[0], None, share)

    def encode_part(
        self, texts: Sequence[str], paths: Sequence[Path], tokens: Path | None = None
    ) -> Encoding:
        """Encode many items whose pictures are files on disk; see `encode_items`.

        Encoders with the same towers can share the tokens of the same items in the folder `tokens`: the first one
        writes them, and the others read them. The result is bitwise the same.
        """
        text = self.preprocessor.tokenize(texts)
        if tokens is None:
            return self.encode_inputs(text, load_pictures(self.preprocessor, paths))
        pictures = PictureFiles(self.preprocessor, paths)
        return Encoding(
            self._encode_text(text, shared=tokens / "text")[0],
            self._encode_pictures(pictures, shared=tokens / "image")[0],
            None,
            self.network.config.text_share,
        )

    def encode_texts(self, texts: Sequence[str]) -> Float32[ndarray, "texts relations dim"]:
        """Encode texts into unit vectors under every relation."""
        return self._encode_text(self.preprocessor.tokenize(texts))[0]

    def text_tokens(self, texts: Sequence[str]) -> TokenRows:
        """Encode texts into tokens (H_T of eq. 3) in half precision."""
        found = self._encode_text(self.preprocessor.tokenize(texts), keep=True)[1]
        assert found is not None
        return found

    def read_relation(self, description: str) -> FreeTextRelation:
        """Encode a free-text relation for scoring against item tokens."""
        return read_free_text(self.network, self.preprocessor, self.relations, self.context(), description)

    def explain(
        self, text: str | None, picture: Image.Image | None, relation: str | FreeTextRelation
    ) -> Attention:
        """Compute the attention of a relation over an item (A of eq. 5), exactly as `encode_items` uses it."""
        known = self.context()
        return explain(self.network, self.preprocessor, self.relations, known, text, picture, relation)

    @torch.inference_mode()
    def attention_entropy(
        self, text: TextInput | StoredTokens, pictures: Pictures | StoredTokens
    ) -> AttentionEntropy:
        """Measure how uniform the attention is, on at most `BATCH_ITEMS` items spread evenly over those given."""
        known = self.context()
        rows = torch.linspace(0, len(text) - 1, min(BATCH_ITEMS, len(text))).long()
        return AttentionEntropy(
            text=relative_entropy(self.network, self._text_tokens(text, rows), known.text),
            image=relative_entropy(self.network, self._image_tokens(pictures, rows), known.image),
        )

    def _text_tokens(self, text: TextInput | StoredTokens, rows: Int[Tensor, " batch"]) -> Tokens:
        return self.network.text_tokens(text.take(rows).to(self._device))

    def _image_tokens(self, pictures: Pictures | StoredTokens, rows: Int[Tensor, " batch"]) -> Tokens:
        taken = pictures.take(rows).to(self._device)
        if isinstance(taken, PictureInput):
            taken = self.preprocessor.normalise(taken)
        return self.network.image_tokens(taken)

    @torch.inference_mode()
    def _encode_text(
        self, text: TextInput | StoredTokens, keep: bool = False, shared: Path | None = None
    ) -> tuple[Float32[ndarray, "texts relations dim"], TokenRows | None]:
        context = self.context()

        def pooling() -> Pooling:
            projection = self.network.backbone.text_projection() if keep else None
            return Pooling(self.network.attention, context.text, projection)

        # Batch by length, so that short texts are not padded to the length of the longest text.
        order = text.mask.sum(dim=1).argsort(stable=True)
        if self._graphs is None or shared is not None or isinstance(text, StoredTokens):
            return self._encode(order, self._outputs(partial(self._text_tokens, text), pooling, shared))
        return self._encode(order, self._graphs.of_texts(text, context, pooling, keep))

    @torch.inference_mode()
    def _encode_pictures(
        self, pictures: Pictures | StoredTokens, keep: bool = False, shared: Path | None = None
    ) -> tuple[Float32[ndarray, "pictures relations dim"], TokenRows | None]:
        if not len(pictures):  # the network need not run at all: new items often have no picture
            none = TokenRows(np.empty((0, self.dim), np.float16), np.zeros(1, np.int64))
            return np.empty((0, len(self.relations), self.dim), np.float32), none if keep else None
        context = self.context()

        def pooling() -> Pooling:
            projection = self.network.backbone.image_projection() if keep else None
            return Pooling(self.network.attention, context.image, projection)

        order = torch.arange(len(pictures))
        if self._graphs is None or shared is not None or isinstance(pictures, StoredTokens):
            return self._encode(order, self._outputs(partial(self._image_tokens, pictures), pooling, shared))
        return self._encode(order, self._graphs.of_pictures(pictures, context, pooling, keep))

    def _outputs(
        self,
        encode: Callable[[Int[Tensor, " batch"]], Tokens],
        pooling: Callable[[], Pooling],
        shared: Path | None,
    ) -> Outputs:
        """Return a function that computes tokens with `encode`, or reads them (`shared_batches`), and pools them."""
        tokens = encode if shared is None else shared_batches(shared, encode)
        pooled = pooling()
        return lambda rows: pooled(tokens(rows).to(self._device))

    def _encode(
        self, order: Int[Tensor, " items"], outputs: Outputs
    ) -> tuple[Float32[ndarray, "items relations dim"], TokenRows | None]:
        """Compute the vectors and, if `outputs` returns them, the tokens in the joint space."""
        vectors = np.empty((len(order), len(self.relations), self.dim), np.float32)
        kept: dict[int, Float16[ndarray, "tokens dim"]] = {}
        for rows in order.split(BATCH_ITEMS):
            found, *tokens = outputs(rows)
            vectors[rows.numpy()] = to_numpy(found)
            if tokens:
                states, masks = (part.cpu().numpy() for part in tokens)
                kept |= {row: own[mask] for row, own, mask in zip(rows.tolist(), states, masks, strict=True)}
        if not kept:
            return vectors, None
        own = [kept[row] for row in range(len(order))]
        return vectors, TokenRows(np.concatenate(own), np.cumsum([0, *(len(states) for states in own)]))
