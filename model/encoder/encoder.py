"""A checkpoint's network at work: texts and pictures in, unit vectors under every relation out.

Opened by `rcml index`, `rcml evaluate` and the service; the trainer validates with it while it trains, and has
it write the checkpoint in the end. Loading, saving and pushing are spelt as users of Hugging Face expect.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32, Int
from numpy import ndarray
from PIL import Image
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.artifact import Draft, file_digest, write_artifact
from model.checkpoint.calibration import UNCALIBRATED, Calibration
from model.checkpoint.checkpoint import OWN, WEIGHTS, Checkpoint, write_contents
from model.checkpoint.hub import fetch, is_local, push
from model.checkpoint.validity import ValidityHead
from model.config import Device, Precision, TowerEngine
from model.embeddings.attention_map import Attention, Box, PatchWeights, TextWeights, weigh_words
from model.embeddings.encoding import Encoding, ItemTokens, TokenRows
from model.embeddings.free_text import FreeTextRelation
from model.errors import ArtifactError, InputError, UnknownRelationError
from model.network.devices import choose_device
from model.network.image_cache import Pictures, load_pictures
from model.network.inputs import TextInput, Tokens
from model.network.network import Network, NetworkConfig, RelationContext, RelationView
from model.network.precision import inference_backbone
from model.network.processor import Preprocessor
from model.records import Relation

BATCH = 128
"""Items encoded at a time."""


class Encoder:
    """Encodes new and known items under all relations of a checkpoint."""

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
        self._source: Checkpoint | None = None
        self._processors: dict[str, bytes] = {}

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
        if isinstance(source, Path) or is_local(source) or "/" not in source:
            if revision is not None:
                raise InputError(f"{source} is a folder, which has no revision {revision!r}; leave it out.")
            path = Path(source)
        else:
            path = fetch(source, revision)
        checkpoint = Checkpoint.open(path)
        network, preprocessor, place = _load_network(path), Preprocessor.load(path), choose_device(device)
        network.backbone = inference_backbone(network.backbone, preprocessor, precision, engine, place)
        encoder = cls(network, preprocessor, checkpoint.relations, place)
        encoder._source = checkpoint
        # Kept as they were read: transformers would add to them what they were used for, and its version's own.
        others = checkpoint.manifest.files.keys() - OWN
        encoder._processors = {file: (path / file).read_bytes() for file in others}
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
        source = self._source
        if source is None:
            raise InputError(
                "This encoder was not loaded from a checkpoint, so it has no figures and no validity head to "
                "save. Open a draft with `write_artifact` and give them to `Encoder.write`."
            )
        parents = source.manifest.parents
        with write_artifact(Path(folder), "checkpoint", source.config, parents) as draft:
            self.write(draft, source.validity, source.metrics, source.card, source.calibration)
            if not self._unchanged(draft):
                draft.parents["checkpoint"] = source.manifest.digest

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
        metrics: dict[str, Any],
        card: str,
        calibration: Calibration = UNCALIBRATED,
    ) -> None:
        """Fill the draft of a checkpoint with the network as it is now and what is known of it.

        Raises:
            InputError: the weights are not float32.
        """
        weights = {name: tensor.detach().cpu() for name, tensor in self._network.state_dict().items()}
        for name, tensor in weights.items():
            if tensor.is_floating_point() and tensor.dtype != torch.float32:
                raise InputError(
                    f"The weight {name} is {_dtype(tensor)}, and a checkpoint keeps float32: what was rounded off "
                    "cannot be had back. Save an encoder that was loaded in float32."
                )
        # Cloned, because safetensors refuses tensors that share memory.
        save_file(
            {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()},
            draft.path / WEIGHTS,
            metadata={"format": "pt"},
        )
        text = self._network.config.model_dump_json(indent=2) + "\n"
        (draft.path / "network.json").write_text(text, encoding="utf-8")
        if self._processors:
            for file, content in self._processors.items():
                (draft.path / file).parent.mkdir(exist_ok=True)
                (draft.path / file).write_bytes(content)
        else:
            self._preprocessor.save(draft.path)
        if self._source is not None and self._unchanged(draft):
            # Encoded again on another machine, they might differ in the last bit.
            vectors = self._source.relation_vectors
        else:
            self._known = None  # a fused optimizer changes weights, and torch does not count it
            vectors = self.relation_vectors
        write_contents(draft.path, self.relations, vectors, validity, metrics, card, calibration)
        draft.counts.update(
            parameters=sum(weight.numel() for weight in self._network.parameters()),
            relations=len(self.relations),
            dim=self.dim,
        )

    def _unchanged(self, draft: Draft) -> bool:
        """Whether the weights written are those that were loaded."""
        assert self._source is not None
        return file_digest(draft.path / WEIGHTS) == self._source.manifest.files[WEIGHTS].sha256

    @property
    def network(self) -> Network:
        """The network itself, to look into or to tune further."""
        return self._network

    @property
    def dim(self) -> int:
        """Length of every vector."""
        return self._network.backbone.dim

    @property
    def device(self) -> str:
        """Where the network runs, in words."""
        if self._device.type == "cuda":
            return f"cuda ({torch.cuda.get_device_name(self._device)})"
        return self._device.type

    @property
    def relation_vectors(self) -> Float32[ndarray, "relations dim"]:
        """h_E of every relation, not normalised."""
        return _on_cpu(self.context().vectors)

    @torch.inference_mode()
    def context(self) -> RelationContext:
        """The relations under the weights as they are now; encoded once for each version of the weights."""
        version = self._network.version
        if self._known is None or self._known[0] != version:
            context = relation_context(self._network, self._preprocessor, self.relations, self._device)
            self._known = (version, context)
        return self._known[1]

    def encode_items(self, texts: Sequence[str], pictures: Sequence[Image.Image]) -> Encoding:
        """Unit vectors of items under every relation, float32 `[items, relations, dim]` in either view."""
        return self.read_items(texts, pictures)()

    def read_items(
        self, texts: Sequence[str], pictures: Sequence[Image.Image | None], tokens: bool = False
    ) -> Callable[[], Encoding]:
        """See `ItemEncoder.read_items`."""
        pictured = [row for row, picture in enumerate(pictures) if picture is not None]
        room = self._preprocessor.blank(len(pictured))
        for place, row in enumerate(pictured):
            picture = pictures[row]
            assert picture is not None
            self._preprocessor.decode(picture, room, place)
        text = self._preprocessor.tokenize(texts)

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
        return self.encode_inputs(
            self._preprocessor.tokenize(texts), load_pictures(self._preprocessor, paths)
        )

    def encode_texts(self, texts: Sequence[str]) -> Float32[ndarray, "texts relations dim"]:
        """Unit text vectors under every relation."""
        return self._encode_text(self._preprocessor.tokenize(texts))[0]

    def text_tokens(self, texts: Sequence[str]) -> TokenRows:
        """H_T of texts, in half precision."""
        found = self._encode_text(self._preprocessor.tokenize(texts), keep=True)[1]
        assert found is not None
        return found

    @torch.inference_mode()
    def read_relation(self, description: str) -> FreeTextRelation:
        """A relation in words, whether or not it was trained on, ready to be put to tokens."""
        attention, known = self._network.attention, self.context()
        asked = relation_context(
            self._network, self._preprocessor, [Relation(description, description)], self._device
        )
        vectors = torch.cat([asked.vectors, known.vectors])
        joint = attention.view(
            vectors, vectors.new_zeros(len(vectors), dtype=torch.bool), torch.eye(self.dim).to(vectors)
        )
        # By what they look at, not by h_E: relations that differ where no query does are the same to all items.
        distance = (joint.queries[1:] - joint.queries[0]).norm(dim=-1).tolist()
        others = [position for position, relation in enumerate(self.relations) if not relation.intra]
        return FreeTextRelation(
            description,
            _on_cpu(joint.queries[0]),
            _on_cpu(joint.output),
            tuple(sorted(others, key=lambda position: distance[position])),
            _on_cpu(asked.vectors[0]),
        )

    @torch.inference_mode()
    def explain(
        self, text: str | None, picture: Image.Image | None, relation: str | FreeTextRelation
    ) -> Attention:
        """See `ItemEncoder.explain`; A of eq. 4, exactly as `encode_items` pools by it."""
        return Attention(
            None if text is None else self._explain_text(text, relation),
            None if picture is None else self._explain_picture(picture, relation),
        )

    def _explain_text(self, text: str, relation: str | FreeTextRelation) -> TextWeights:
        backbone = self._network.backbone
        tokens = backbone.text_tokens(self._preprocessor.tokenize([text]).to(self._device))
        weights = self._weights(tokens, self.context().text, relation, backbone.text_projection)
        spans = self._preprocessor.spans(text)
        leading = len(weights) - len(spans)  # a summary that is none of the text's own tokens
        return weigh_words(text, [(0, 0)] * leading + spans, weights.tolist())

    def _explain_picture(self, picture: Image.Image, relation: str | FreeTextRelation) -> PatchWeights:
        backbone, room = self._network.backbone, self._preprocessor.blank(1)
        self._preprocessor.decode(picture, room, 0)
        tokens = backbone.image_tokens(self._preprocessor.normalise(room.to(self._device)))
        weights = self._weights(tokens, self.context().image, relation, backbone.image_projection)
        weights = weights[tokens.mask[0].cpu().numpy()]
        layout = backbone.patch_layout(room, len(weights))
        others = len(weights) - layout.rows * layout.columns
        box = self._preprocessor.shown(*picture.size)
        return PatchWeights(
            weights[others:].reshape(layout.rows, layout.columns),
            float(weights[:others].sum()),
            Box(
                box.left,
                box.top,
                box.left + (box.right - box.left) * layout.width,
                box.top + (box.bottom - box.top) * layout.height,
            ),
        )

    def _weights(
        self,
        tokens: Tokens,
        known: RelationView,
        relation: str | FreeTextRelation,
        projection: Callable[[], Float[Tensor, "width dim"]],
    ) -> Float32[ndarray, "tokens"]:
        """A of eq. 4 for the one item whose `tokens` these are; `known` and `projection` are of their modality."""
        if isinstance(relation, FreeTextRelation):
            matrix = projection().to(known.queries.dtype)
            view = replace(
                known,
                intra=known.intra.new_zeros(1),
                queries=(matrix @ torch.from_numpy(relation.query).to(matrix))[None],
            )
        else:
            ids = tuple(one.relation_id for one in self.relations)
            if relation not in ids:
                raise UnknownRelationError(relation, ids)
            place = slice(ids.index(relation), ids.index(relation) + 1)
            view = replace(known, intra=known.intra[place], queries=known.queries[place])
        tokens = replace(tokens, states=tokens.states.to(view.queries.dtype))
        return _on_cpu(self._network.attention.weights(tokens, view)[0, 0])

    def _encode_text(
        self, text: TextInput, keep: bool = False
    ) -> tuple[Float32[ndarray, "texts relations dim"], TokenRows | None]:
        backbone = self._network.backbone

        def encode(rows: Int[Tensor, "batch"]) -> Tokens:
            return backbone.text_tokens(text.take(rows).to(self._device))

        # Batched by length, so that short texts are not padded to the longest.
        order = text.mask.sum(dim=1).argsort(stable=True)
        return self._encode(order, encode, self.context().text, backbone.text_projection if keep else None)

    def _encode_pictures(
        self, pictures: Pictures, keep: bool = False
    ) -> tuple[Float32[ndarray, "pictures relations dim"], TokenRows | None]:
        backbone = self._network.backbone

        def encode(rows: Int[Tensor, "batch"]) -> Tokens:
            return backbone.image_tokens(self._preprocessor.normalise(pictures.take(rows).to(self._device)))

        order = torch.arange(len(pictures))
        return self._encode(order, encode, self.context().image, backbone.image_projection if keep else None)

    @torch.inference_mode()
    def _encode(
        self,
        order: Int[Tensor, "items"],
        encode: Callable[[Int[Tensor, "batch"]], Tokens],
        relations: RelationView,
        projection: Callable[[], Float[Tensor, "width dim"]] | None,
    ) -> tuple[Float32[ndarray, "items relations dim"], TokenRows | None]:
        """Vectors, and with a `projection` the tokens in the joint space."""
        vectors = np.empty((len(order), len(self.relations), self.dim), np.float32)
        matrix = None if projection is None else projection().to(relations.queries.dtype)
        kept: dict[int, Float16[ndarray, "tokens dim"]] = {}
        for rows in order.split(BATCH) if len(order) else ():
            tokens = encode(rows)
            vectors[rows.numpy()] = _on_cpu(self._network.attention(tokens, relations))
            if matrix is not None:
                states = (tokens.states.to(matrix.dtype) @ matrix).half().cpu().numpy()
                masks = tokens.mask.cpu().numpy()
                kept |= {row: own[mask] for row, own, mask in zip(rows.tolist(), states, masks, strict=True)}
        if matrix is None:
            return vectors, None
        own = [kept[row] for row in range(len(order))]
        starts = np.cumsum([0, *(len(states) for states in own)])
        return vectors, TokenRows(np.concatenate([np.empty((0, self.dim), np.float16), *own]), starts)


def _load_network(folder: Path) -> Network:
    """The network of a checkpoint, ready to encode, exactly as it was saved.

    Raises:
        ArtifactError: the weights are not those of the network.
    """
    try:
        config = NetworkConfig.model_validate_json((folder / "network.json").read_bytes())
        weights = load_file(folder / WEIGHTS)
    except (ValidationError, SafetensorError) as error:
        raise ArtifactError(
            f"The network in {folder} cannot be read by this version of rcml: {error}"
        ) from None
    network = Network.from_config(config)
    expected = network.state_dict()
    wrong = [f"{name} is missing" for name in expected.keys() - weights.keys()]
    wrong += [f"{name} is not known" for name in weights.keys() - expected.keys()]
    wrong += [
        f"{name} is {_shape(weights[name])} instead of {_shape(expected[name])}"
        for name in expected.keys() & weights.keys()
        if _shape(weights[name]) != _shape(expected[name])
    ]
    if wrong:
        more = f"; and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise ArtifactError(
            f"{folder / WEIGHTS} does not fit network.json: {'; '.join(sorted(wrong)[:8])}{more}. Train the "
            "checkpoint again, or load it with the version of rcml that made it."
        )
    network.load_state_dict(weights)
    return network.eval()


def _shape(tensor: Tensor) -> str:
    return f"{_dtype(tensor)} {list(tensor.shape)}"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def relation_context(
    network: Network, preprocessor: Preprocessor, relations: Sequence[Relation], device: torch.device
) -> RelationContext:
    """h_E of `relations`, each as the network sees it."""
    seen = [network.seen(relation) for relation in relations]
    texts = preprocessor.tokenize([relation.description for relation in seen])
    return network.context(texts.to(device), seen)


def _on_cpu(vectors: Tensor) -> ndarray:
    array: ndarray = vectors.float().cpu().numpy()
    return array
