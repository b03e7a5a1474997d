"""A trained network that encodes items: texts and pictures in, unit vectors under every relation out.

Opened by `rcml index`, `rcml evaluate` and the service; the trainer validates with it while it trains, and has
it write the checkpoint in the end. Loading, saving and pushing are spelt as users of Hugging Face expect.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32, Int
from numpy import ndarray
from PIL import Image
from torch import Tensor

from model.artifact import Draft, write_artifact
from model.checkpoint.calibration import UNCALIBRATED, Calibration
from model.checkpoint.checkpoint import write_contents
from model.checkpoint.hub import push
from model.checkpoint.training_metrics import TrainingMetrics
from model.checkpoint.validity import ValidityHead
from model.config import Device, Precision, TowerEngine
from model.embeddings.attention_map import Attention
from model.embeddings.encoding import Encoding, ItemTokens, TokenRows
from model.embeddings.free_text import FreeTextRelation
from model.errors import InputError
from model.network.devices import choose_device
from model.network.image_cache import Pictures, load_pictures
from model.network.inputs import TextInput, Tokens
from model.network.network import Network
from model.network.precision import inference_backbone
from model.network.processor import Preprocessor
from model.network.relation_attention import RelationContext, RelationView
from model.records import Relation

from .explain import explain
from .read_relation import read_free_text, relation_context, to_numpy
from .save_load import Source, load_network, locate, write_network, write_processors

BATCH_ITEMS = 128
"""Items encoded at a time."""


class Encoder:
    """A trained network with the relations of its checkpoint, under which it encodes new and known items."""

    def __init__(
        self,
        network: Network,
        preprocessor: Preprocessor,
        relations: Sequence[Relation],
        device: torch.device,
    ) -> None:
        self._network = network.to(device)
        self._preprocessor = preprocessor
        self._device = device
        self.relations = tuple(relations)
        self._known: tuple[int, RelationContext] | None = None
        self._source: Source | None = None

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        device: Device = "auto",
        revision: str | None = None,
        precision: Precision = "fp32",
        engine: TowerEngine = "torch",
    ) -> Self:
        """Load a checkpoint: the folder at this path, or the Hub's model of this name (`owner/name`).

        A `Path` is always a folder, and a string that could be one is, so that only what must be a Hub name
        is looked for there. `revision` is a branch, tag or commit of the Hub. `precision` and `engine` are
        those of the towers (`model/network/precision.py`); what is loaded in bf16 cannot be saved again.

        Raises:
            ArtifactError: there is none, it is damaged, or its weights are not those of its network.
            InputError: CUDA is asked for and there is none, a folder is asked for by revision, or the engine
                is not there or cannot run the towers.
        """
        path = locate(source, revision)
        opened = Source.open(path)
        network, preprocessor, place = load_network(path), Preprocessor.load(path), choose_device(device)
        network.backbone = inference_backbone(network.backbone, preprocessor, precision, engine, place)
        encoder = cls(network, preprocessor, opened.checkpoint.relations, place)
        encoder._source = opened
        return encoder

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a whole checkpoint at `folder`, with the weights as they are now.

        The options, the validity head, its calibration, the figures and the model card are those of the checkpoint
        that was loaded, which becomes a parent of the new one if the weights have changed since. Unchanged, it is
        written as it was, byte for byte.

        Raises:
            InputError: this encoder was not loaded from a checkpoint, or its weights are not float32.
            ArtifactError: `folder` holds something else.
        """
        if self._source is None:
            raise InputError(
                "This encoder was not loaded from a checkpoint, so it has no figures and no validity head to "
                "save. Open a draft with `write_artifact` and give them to `Encoder.write`."
            )
        loaded = self._source.checkpoint
        with write_artifact(Path(folder), "checkpoint", loaded.config, loaded.manifest.parents) as draft:
            self.write(draft, loaded.validity, loaded.metrics, loaded.card, loaded.calibration)
            if not self._source.has_weights_of(draft):
                draft.parents["checkpoint"] = loaded.manifest.digest

    def push_to_hub(
        self,
        repo_id: str,
        private: bool | None = None,
        commit_message: str = "Upload a checkpoint of rcml",
    ) -> str:
        """`save_pretrained` to the Hub, as one commit to `repo_id` (`owner/name`); returns the commit's URL.

        The repository is made if need be: public or `private`, or as its owner's settings say. The token is
        that of `hf auth login`, or `HF_TOKEN`.

        Raises:
            InputError: as `save_pretrained`, or the Hub cannot be reached or refuses.
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
        """Fill the draft of a checkpoint with the network as it is now and what is known of it.

        Raises:
            InputError: the weights are not float32.
        """
        write_network(draft, self.network)
        write_processors(draft, self.preprocessor, self._source)
        if self._source is not None and self._source.has_weights_of(draft):
            # Encoded again on another machine, they might differ in the last bit.
            vectors = self._source.checkpoint.relation_vectors
        else:
            self._known = None  # a fused optimizer changes weights, and torch does not count it
            vectors = self.relation_vectors
        write_contents(draft.path, self.relations, vectors, validity, metrics, card, calibration)
        draft.counts.update(
            parameters=sum(weight.numel() for weight in self.network.parameters()),
            relations=len(self.relations),
            dim=self.dim,
        )

    @property
    def network(self) -> Network:
        """The network itself, to look into or to train further."""
        return self._network

    @property
    def preprocessor(self) -> Preprocessor:
        """The tokenizer and the image processor of the network."""
        return self._preprocessor

    @property
    def dim(self) -> int:
        """Length of every vector."""
        return self.network.backbone.dim

    @property
    def device(self) -> str:
        """Where the network runs, in words."""
        if self._device.type == "cuda":
            return f"cuda ({torch.cuda.get_device_name(self._device)})"
        return self._device.type

    @property
    def relation_vectors(self) -> Float32[ndarray, "relations dim"]:
        """h_E of every relation, not normalised."""
        return to_numpy(self.context().vectors)

    @torch.inference_mode()
    def context(self) -> RelationContext:
        """Encode the relations under the weights as they are now; once for each version of the weights."""
        version = self.network.version
        if self._known is None or self._known[0] != version:
            context = relation_context(self.network, self.preprocessor, self.relations, self._device)
            self._known = (version, context)
        return self._known[1]

    def encode_items(self, texts: Sequence[str], pictures: Sequence[Image.Image]) -> Encoding:
        """Encode items into unit vectors under every relation, float32 `[items, relations, dim]` in either view."""
        return self.read_items(texts, pictures)()

    def read_items(
        self, texts: Sequence[str], pictures: Sequence[Image.Image | None], tokens: bool = False
    ) -> Callable[[], Encoding]:
        """See `ItemEncoder.read_items`."""
        pictured = [row for row, picture in enumerate(pictures) if picture is not None]
        room = self.preprocessor.blank(len(pictured))
        for place, row in enumerate(pictured):
            picture = pictures[row]
            assert picture is not None
            self.preprocessor.decode(picture, room, place)
        text = self.preprocessor.tokenize(texts)

        def encode() -> Encoding:
            text_vectors, text_tokens = self._encode_text(text, tokens)
            found, image_tokens = self._encode_pictures(room, tokens)
            image_vectors = np.zeros_like(text_vectors)
            image_vectors[pictured] = found
            if text_tokens is None or image_tokens is None:
                return Encoding(text_vectors, image_vectors)
            counts = np.zeros(len(texts), np.int64)
            counts[pictured] = np.diff(image_tokens.starts)
            image_tokens = TokenRows(image_tokens.states, np.append(0, np.cumsum(counts)))
            return Encoding(text_vectors, image_vectors, ItemTokens(text_tokens, image_tokens))

        return encode

    def encode_inputs(self, text: TextInput, pictures: Pictures) -> Encoding:
        """`encode_items` for texts already tokenized and pictures already decoded."""
        return Encoding(self._encode_text(text)[0], self._encode_pictures(pictures)[0])

    def encode_part(self, texts: Sequence[str], paths: Sequence[Path]) -> Encoding:
        """`encode_items` for many items whose pictures are on disk."""
        return self.encode_inputs(self.preprocessor.tokenize(texts), load_pictures(self.preprocessor, paths))

    def encode_texts(self, texts: Sequence[str]) -> Float32[ndarray, "texts relations dim"]:
        """Encode texts into unit vectors under every relation."""
        return self._encode_text(self.preprocessor.tokenize(texts))[0]

    def text_tokens(self, texts: Sequence[str]) -> TokenRows:
        """H_T of texts, in half precision."""
        found = self._encode_text(self.preprocessor.tokenize(texts), keep=True)[1]
        assert found is not None
        return found

    def read_relation(self, description: str) -> FreeTextRelation:
        """Encode a free-text relation for scoring against item tokens; it need not have been seen in training."""
        return read_free_text(self.network, self.preprocessor, self.relations, self.context(), description)

    def explain(
        self, text: str | None, picture: Image.Image | None, relation: str | FreeTextRelation
    ) -> Attention:
        """See `ItemEncoder.explain`; A of eq. 4, exactly as `encode_items` pools by it."""
        known = self.context()
        return explain(self.network, self.preprocessor, self.relations, known, text, picture, relation)

    def _encode_text(
        self, text: TextInput, keep: bool = False
    ) -> tuple[Float32[ndarray, "texts relations dim"], TokenRows | None]:
        backbone = self.network.backbone

        def encode(rows: Int[Tensor, " batch"]) -> Tokens:
            return backbone.text_tokens(text.take(rows).to(self._device))

        # Batched by length, so that short texts are not padded to the longest.
        order = text.mask.sum(dim=1).argsort(stable=True)
        return self._encode(order, encode, self.context().text, backbone.text_projection if keep else None)

    def _encode_pictures(
        self, pictures: Pictures, keep: bool = False
    ) -> tuple[Float32[ndarray, "pictures relations dim"], TokenRows | None]:
        backbone = self.network.backbone

        def encode(rows: Int[Tensor, " batch"]) -> Tokens:
            return backbone.image_tokens(self.preprocessor.normalise(pictures.take(rows).to(self._device)))

        order = torch.arange(len(pictures))
        return self._encode(order, encode, self.context().image, backbone.image_projection if keep else None)

    @torch.inference_mode()
    def _encode(
        self,
        order: Int[Tensor, " items"],
        encode: Callable[[Int[Tensor, " batch"]], Tokens],
        relations: RelationView,
        projection: Callable[[], Float[Tensor, "width dim"]] | None,
    ) -> tuple[Float32[ndarray, "items relations dim"], TokenRows | None]:
        """Vectors, and with a `projection` the tokens in the joint space."""
        vectors = np.empty((len(order), len(self.relations), self.dim), np.float32)
        matrix = None if projection is None else projection().to(relations.queries.dtype)
        kept: dict[int, Float16[ndarray, "tokens dim"]] = {}
        for rows in order.split(BATCH_ITEMS) if len(order) else ():
            tokens = encode(rows)
            vectors[rows.numpy()] = to_numpy(self.network.attention(tokens, relations))
            if matrix is not None:
                states = (tokens.states.to(matrix.dtype) @ matrix).half().cpu().numpy()
                masks = tokens.mask.cpu().numpy()
                kept |= {row: own[mask] for row, own, mask in zip(rows.tolist(), states, masks, strict=True)}
        if matrix is None:
            return vectors, None
        own = [kept[row] for row in range(len(order))]
        starts = np.cumsum([0, *(len(states) for states in own)])
        return vectors, TokenRows(np.concatenate([np.empty((0, self.dim), np.float16), *own]), starts)
