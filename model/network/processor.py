"""Tokenizer and image processor of a backbone: the ones it was trained with, or one trained on the catalogue."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, CLIPTokenizer, PreTrainedConfig

# Some releases of transformers hide the name they export where torchvision is missing; this one needs it not.
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from model.checkpoint.hub import is_local
from model.config import SmallBackbone
from model.embeddings.attention_map import Box, Span
from model.errors import InputError

from .backbone_config import read_config, shortened
from .inputs import PictureInput, TextInput

MAX_TOKENS = 77
"""Context length of CLIP's text tower; longer texts are cut."""

UNLIMITED_TOWER_TOKENS = 512
"""Where texts are cut for a tower that sets no limit itself."""

TEXT_FORMAT_FILE = "text_format.json"
"""File beside the tokenizer of whatever `Preprocessor.save` wrote."""

LAST_TOKEN_TOWERS = frozenset({"siglip_text_model", "siglip2_text_model"})
"""Model types whose text is summed up by the last position, so that all texts must be of one length."""

OFFSET_POSITIONS = frozenset(
    {
        "camembert",
        "data2vec-text",
        "ibert",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Model types that number positions from `pad_token_id + 1`, and so can read that many tokens fewer."""

MAX_RULER_SIDE = 256
"""Pixels, at most, of the shorter side of the picture that an image processor is measured by."""


class TextFormat(BaseModel):
    """`text_format.json`: how a text tower wants its texts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int = Field(ge=1, description="longer texts are cut")
    fixed_length: bool = Field(description="whether all texts are padded to `max_tokens`")

    @classmethod
    def of(cls, config: PreTrainedConfig, tokenizer_limit: int) -> Self:
        """Derive the format from a model's `config` and from the most tokens that its tokenizer would give."""
        text = config.text_config
        positions = getattr(text, "max_position_embeddings", None) or UNLIMITED_TOWER_TOKENS
        if text.model_type in OFFSET_POSITIONS:
            positions -= text.pad_token_id + 1
        return cls(
            max_tokens=min(positions, tokenizer_limit), fixed_length=text.model_type in LAST_TOKEN_TOWERS
        )


class Preprocessor:
    """Tokenizer and image processor of a backbone, as they were when it was trained."""

    def __init__(self, tokenizer: Any, image_processor: Any, text_format: TextFormat) -> None:
        if tokenizer.pad_token_id is None:
            raise InputError(
                f"The tokenizer ({type(tokenizer).__name__}) has no padding token, without which texts of "
                "different lengths cannot be read together; name one in tokenizer_config.json."
            )
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self._text_format = text_format
        self._shape = self._picture_shape()

    @classmethod
    def load(cls, name: str | Path) -> Self:
        """Load what `save` wrote, or the processors of a model in the layout of `transformers`.

        Raises:
            InputError: they are not there, or of no use here.
        """
        options = {"local_files_only": is_local(name), "trust_remote_code": False}
        saved = Path(name) / TEXT_FORMAT_FILE
        try:
            # What we saved lies in a checkpoint, whose config.json is not that of a model; and there transformers
            # would guess one from the folder's name.
            config: Any = PreTrainedConfig() if saved.is_file() else read_config(name)
            # A dual encoder has no tokenizer of its own kind: it has its text tower's.
            reader = config.text_config if config.model_type == "vision-text-dual-encoder" else config
            try:
                tokenizer: Any = AutoTokenizer.from_pretrained(name, config=reader, **options)
            except ImportError as error:
                raise InputError(
                    f"The tokenizer in {str(name)!r} needs packages that are not installed: "
                    f"run `pip install 'rcml[siglip]'`. ({shortened(error)})"
                ) from None
            image_processor = AutoImageProcessor.from_pretrained(
                name, config=config, backend="pil", **options
            )
            if saved.is_file():
                text_format = TextFormat.model_validate_json(saved.read_bytes())
            else:
                text_format = TextFormat.of(config, tokenizer.model_max_length)
        except (ImportError, OSError, ValueError) as error:
            raise InputError(
                f"No tokenizer and image processor could be loaded from {str(name)!r}: {shortened(error)}"
            ) from None
        return cls(tokenizer, image_processor, text_format)

    @classmethod
    def train(cls, texts: Iterable[str], shape: SmallBackbone) -> Self:
        """Make CLIP's own kind of tokenizer (byte-level BPE, lower case) from `texts`."""
        tokenizer = _train_tokenizer(texts, shape.vocabulary)
        side = shape.image_size
        size: dict[str, Any] = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
        text_format = TextFormat(max_tokens=MAX_TOKENS, fixed_length=False)
        return cls(tokenizer, CLIPImageProcessorPil(**size), text_format)

    def save(self, folder: Path) -> None:
        """Write the tokenizer, `preprocessor_config.json` and `text_format.json` into `folder`."""
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        (folder / TEXT_FORMAT_FILE).write_text(self._text_format.model_dump_json(indent=2) + "\n")

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return len(self.tokenizer)

    @property
    def special_ids(self) -> dict[str, Any]:
        """The ids that a text tower's config must know."""
        return {
            "bos_token_id": self.tokenizer.bos_token_id,
            "eos_token_id": self.tokenizer.eos_token_id,
            "pad_token_id": self.tokenizer.pad_token_id,
        }

    def tokenize(self, texts: Sequence[str]) -> TextInput:
        """Tokenize `texts`, cut to what the text tower can read."""
        encoded = self._encode(list(texts), return_attention_mask=True, return_tensors="pt")
        mask = encoded["attention_mask"].bool()
        if self._text_format.fixed_length:
            mask[:, -1] = True  # it sums up the text, real token or not
        return TextInput(encoded["input_ids"], mask)

    def spans(self, text: str) -> list[Span]:
        """Locate the characters that each token of `tokenize([text])` stands for; none for a token outside the text.

        A tokenizer that cannot tell (SigLIP's) is asked word by word. Where the words, put together, are not what it
        makes of the whole, every token stands for the whole.
        """
        if self.tokenizer.is_fast:
            encoded = self._encode(text, return_offsets_mapping=True)
            return [(start, end) for start, end in encoded["offset_mapping"]]
        encoded = self._encode(text, return_special_tokens_mask=True)
        words = [(word.start(), word.end()) for word in re.finditer(r"\S+", text)]
        alone = [
            (token, span)
            for span in words
            for token in self.tokenizer(text[slice(*span)], add_special_tokens=False)["input_ids"]
        ]
        places = [place for place, special in enumerate(encoded["special_tokens_mask"]) if not special]
        ids = [encoded["input_ids"][place] for place in places]
        same = ids == [token for token, _ in alone[: len(ids)]]
        spans = [(0, 0)] * len(encoded["input_ids"])
        for order, place in enumerate(places):
            spans[place] = alone[order][1] if same else (0, len(text))
        return spans

    def _encode(self, texts: str | list[str], **options: Any) -> Any:
        return self.tokenizer(
            texts,
            padding="max_length" if self._text_format.fixed_length else "longest",
            padding_side="right",
            truncation=True,
            max_length=self._text_format.max_tokens,
            **options,
        )

    def blank(self, count: int, file: Path | None = None) -> PictureInput:
        """Make room for `count` decoded pictures, in memory or in an array on disk at `file`."""
        shape = (count, *self._shape)
        if file is None:
            pixels = np.zeros(shape, np.uint8)
        else:
            pixels = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
        return PictureInput(torch.from_numpy(pixels), torch.zeros(count, 2, dtype=torch.int32))

    def decode(self, picture: Image.Image, into: PictureInput, row: int) -> None:
        """Resize and crop as the processor says; left as bytes, so that many fit into memory."""
        # A JPEG can be decoded at a fraction of its size; twice the side that is needed, as in Pillow's thumbnail.
        side = 2 * math.isqrt(math.prod(self._shape) // 3)
        picture.draft("RGB", (side, side))
        processed = self._process(picture.convert("RGB"))
        pixels = np.asarray(processed["pixel_values"][0])
        if pixels.dtype != np.uint8:  # of a processor that resizes in floating point
            pixels = pixels.round().clip(0, 255)
        # By NumPy, not torch: many threads do this at once (see `inputs._rows`).
        into.pixels.numpy()[row] = pixels
        if "spatial_shapes" in processed:
            into.grid[row] = torch.from_numpy(np.asarray(processed["spatial_shapes"][0]))

    def shown(self, width: int, height: int) -> Box:
        """Measure which part of a picture of this size `decode` keeps, to a pixel of the decoded picture.

        Processors resize, crop and pad by rules of their own; so one is given a picture whose red and green say where
        each pixel lies, and what comes out is read. Blue is full, or it is padding.
        """
        if len(self._shape) < 3:
            return Box(0.0, 0.0, 1.0, 1.0)  # NaFlex: the whole, resized
        shorter = min(width, height)
        # A small picture is enlarged by a whole factor, so that its ruler is rounded as the picture is.
        scale = MAX_RULER_SIDE // shorter if shorter <= MAX_RULER_SIDE else MAX_RULER_SIDE / shorter
        columns, rows = round(width * scale), round(height * scale)
        ruler = np.full((rows, columns, 3), 255.0)
        across, down = (np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows
        # Either colour takes a little from the other side, or what all rows are rounded by would be the same.
        mixture = np.array([[0.9, 0.1], [0.1, 0.9]])
        ruler[:, :, :2] *= np.stack(np.meshgrid(across, down), axis=-1) @ mixture
        pixels = np.asarray(self._process(Image.fromarray(ruler.round().astype(np.uint8)))["pixel_values"][0])
        # Near the rim, a filter bends the scale.
        kept = (pixels[2] > 250) & (abs(pixels[:2] - 127.5) < 110).all(axis=0)
        y, x = np.nonzero(kept)
        places = np.column_stack([x + 0.5, y + 0.5, np.ones(len(x))])
        affine = np.linalg.lstsq(places, pixels[:2, kept].T / 255)[0] @ np.linalg.inv(mixture)
        corners = np.array([[0, 0, 1], [kept.shape[1], kept.shape[0], 1]]) @ affine
        left, top, right, bottom = (corners.round(3) + 0.0).ravel().tolist()  # no -0.0
        return Box(left, top, right, bottom)

    def normalise(self, pictures: PictureInput) -> PictureInput:
        """Rescale and normalise on whatever device the bytes are."""
        processor, pixels = self.image_processor, pictures.pixels.float()
        if processor.do_rescale:
            pixels = pixels * processor.rescale_factor
        if processor.do_normalize:
            mean, std = (
                torch.tensor(values, device=pixels.device)
                for values in (processor.image_mean, processor.image_std)
            )
            if len(self._shape) == 3:
                mean, std = mean[:, None, None], std[:, None, None]
            else:  # the values of a patch are its pixels row by row, the three colours of one side by side
                mean, std = (channels.repeat(self._shape[-1] // 3) for channels in (mean, std))
            pixels = (pixels - mean) / std
        return PictureInput(pixels, pictures.grid)

    def _process(self, picture: Image.Image) -> Mapping[str, Any]:
        processed: Mapping[str, Any] = self.image_processor(
            picture, do_rescale=False, do_normalize=False, return_tensors="np"
        )
        return processed

    def _picture_shape(self) -> tuple[int, ...]:
        """Shape of every decoded picture: `[3, height, width]` or `[patches, values]`."""
        shapes = {
            self._process(Image.new("RGB", size))["pixel_values"].shape[1:] for size in ((9, 6), (6, 9))
        }
        if len(shapes) > 1:
            raise InputError(
                f"The image processor ({type(self.image_processor).__name__}) gives pictures of different "
                f"shapes ({' and '.join(map(str, sorted(shapes)))}); set size or crop_size in "
                "preprocessor_config.json so that all are of one."
            )
        shape: tuple[int, ...] = shapes.pop()
        return shape


def _train_tokenizer(texts: Iterable[str], vocabulary: int) -> CLIPTokenizer:
    """Train a byte-level BPE of `vocabulary` tokens, deterministically."""
    blank = CLIPTokenizer()
    symbols = sorted(ByteLevel.alphabet())
    # CLIP's BPE marks the last byte of a word. The marked bytes are named here as "special" so that all of them
    # exist, or an unseen last letter would be lost, and have fixed ids: left to the trainer, the ids of those it
    # meets, and the merges that depend on them, differ from run to run.
    marked = [f"{symbol}</w>" for symbol in symbols]
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[blank.bos_token, blank.eos_token, *marked],
        initial_alphabet=symbols,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend = blank.backend_tokenizer
    backend.train_from_iterator(texts, trainer)
    learnt = json.loads(backend.to_str())["model"]
    merges: Any = [tuple(merge) for merge in learnt["merges"]]  # typed as strings, taken as pairs
    return CLIPTokenizer(vocab=learnt["vocab"], merges=merges, model_max_length=MAX_TOKENS)
