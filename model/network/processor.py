"""Tokenizer and image processor of a backbone: those of a pretrained model, or a tokenizer trained on the catalogue."""

import json
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, CLIPTokenizer, PreTrainedConfig

# Imported from their own modules, because some releases of transformers hide the exported names if torchvision is
# missing, although these classes do not need it.
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from model.checkpoint.hub import check_reached, is_local
from model.config import SmallBackbone
from model.embeddings.attention_map import Box, Span
from model.errors import InputError
from model.records import FIELD_END

from .backbone_config import read_config, shortened
from .inputs import PictureInput, TextInput
from .pictures.picture_decoder import PictureDecoder

MAX_TOKENS = 77
"""Context length of CLIP's text tower; longer texts are truncated."""

UNLIMITED_TOWER_TOKENS = 512
"""Maximum number of tokens for a text tower whose config sets no limit."""

TEXT_FORMAT_FILE = "text_format.json"
"""File that `Preprocessor.save` writes next to the tokenizer."""

LAST_TOKEN_TOWERS = frozenset({"siglip_text_model", "siglip2_text_model"})
"""Model types whose summary token is at the last position, so all texts must be padded to one length."""

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
"""Model types whose token positions start at `pad_token_id + 1`, so the lower positions cannot be used."""


class TextFormat(BaseModel):
    """Content of `text_format.json`: the text length that a text tower expects."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int = Field(ge=1, description="maximum number of tokens; longer texts are truncated")
    fixed_length: bool = Field(description="whether all texts are padded to `max_tokens`")

    @classmethod
    def of(cls, config: PreTrainedConfig, tokenizer_limit: int) -> Self:
        """Derive the format from a model's `config` and the maximum number of tokens of its tokenizer."""
        text = config.text_config
        positions = getattr(text, "max_position_embeddings", None) or UNLIMITED_TOWER_TOKENS
        if text.model_type in OFFSET_POSITIONS:
            positions -= text.pad_token_id + 1
        return cls(
            max_tokens=min(positions, tokenizer_limit), fixed_length=text.model_type in LAST_TOKEN_TOWERS
        )


class Preprocessor:
    """Tokenizer and image processor of a backbone, with the settings used to train it.

    With `exact_pictures`, the image processor itself resizes pictures; see `PictureDecoder`.
    """

    def __init__(
        self, tokenizer: Any, image_processor: Any, text_format: TextFormat, exact_pictures: bool = False
    ) -> None:
        if tokenizer.pad_token_id is None:
            raise InputError(
                f"The tokenizer ({type(tokenizer).__name__}) has no padding token, so texts of different "
                "lengths cannot be encoded in one batch. Set pad_token in tokenizer_config.json."
            )
        self.tokenizer = tokenizer
        self.decoder = PictureDecoder(image_processor, exact_pictures)
        self.text_format = text_format

    @classmethod
    def load(cls, name: str | Path) -> Self:
        """Load a saved preprocessor, or the processors of a model in the `transformers` format.

        Raises:
            InputError: the processors are missing or cannot be used.
        """
        options = {"local_files_only": is_local(name), "trust_remote_code": False}
        saved = Path(name) / TEXT_FORMAT_FILE
        try:
            # `save` writes into a checkpoint, whose config.json does not describe a model. The empty config keeps
            # transformers from guessing a model from the folder's name.
            config: Any = PreTrainedConfig() if saved.is_file() else read_config(name)
            # A dual encoder uses the tokenizer of its text tower.
            reader = config.text_config if config.model_type == "vision-text-dual-encoder" else config
            try:
                tokenizer: Any = AutoTokenizer.from_pretrained(name, config=reader, **options)
            except ImportError as error:
                raise InputError(
                    f"The tokenizer in {str(name)!r} needs packages that are not installed. "
                    f"Run `pip install 'rcml[siglip]'`. ({shortened(error)})"
                ) from None
            image_processor = AutoImageProcessor.from_pretrained(
                name, config=config, backend="pil", **options
            )
            if saved.is_file():
                text_format = TextFormat.model_validate_json(saved.read_bytes())
            else:
                text_format = TextFormat.of(config, tokenizer.model_max_length)
        except (ImportError, OSError, ValueError) as error:
            check_reached(name, error)
            raise InputError(
                f"No tokenizer and image processor could be loaded from {str(name)!r}: {shortened(error)} "
                "Provide a model that has both."
            ) from None
        return cls(tokenizer, image_processor, text_format)

    @classmethod
    def train(cls, texts: Iterable[str], shape: SmallBackbone) -> Self:
        """Train a CLIP tokenizer (byte-level BPE, lower case) on `texts`, and add CLIP's image processor."""
        tokenizer = _train_tokenizer(texts, shape.vocabulary)
        side = shape.image_size
        size: dict[str, Any] = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
        text_format = TextFormat(max_tokens=MAX_TOKENS, fixed_length=False)
        return cls(tokenizer, CLIPImageProcessorPil(**size), text_format)

    def save(self, folder: Path) -> None:
        """Write the tokenizer, `preprocessor_config.json` and `text_format.json` into `folder`."""
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        (folder / TEXT_FORMAT_FILE).write_text(self.text_format.model_dump_json(indent=2) + "\n")

    @property
    def image_processor(self) -> Any:
        """Image processor of the backbone."""
        return self.decoder.image_processor

    @property
    def vocabulary(self) -> int:
        """Number of tokens in the vocabulary."""
        return len(self.tokenizer)

    @property
    def max_tokens(self) -> int:
        """Maximum number of tokens of a text."""
        return int(self.text_format.max_tokens)

    @property
    def padding_id(self) -> int:
        """ID of the padding token."""
        padding: int = self.tokenizer.pad_token_id
        return padding

    @property
    def special_ids(self) -> dict[str, Any]:
        """Special token IDs for the config of a text tower."""
        return {
            "bos_token_id": self.tokenizer.bos_token_id,
            "eos_token_id": self.tokenizer.eos_token_id,
            "pad_token_id": self.tokenizer.pad_token_id,
        }

    def tokenize(self, texts: Sequence[str]) -> TextInput:
        """Tokenize `texts`, truncated to the maximum length of the text tower."""
        encoded = self._encode(list(texts), return_attention_mask=True, return_tensors="pt")
        mask = encoded["attention_mask"].bool()
        if self.text_format.fixed_length:
            mask[:, -1] = True  # the summary token, even if it is padding
        fields = torch.zeros_like(encoded["input_ids"], dtype=torch.int16)
        for row, text in enumerate(texts):
            for place in self._later_fields(encoded, row, text):
                fields[row, place:] += 1
        return TextInput(encoded["input_ids"], mask, fields)

    def _later_fields(self, encoded: Any, row: int, text: str) -> list[int]:
        """Return the positions of the tokens with which the second and further fields of a text begin.

        A field begins with its first character that has a token. A field that was truncated is left out.
        """
        ends = [found.end() for found in re.finditer(re.escape(FIELD_END), text)]
        if not ends:
            return []
        if not self.tokenizer.is_fast:
            spans = self.spans(text)
            firsts = (
                [place for place, (start, stop) in enumerate(spans) if end <= start < stop] for end in ends
            )
            return sorted({places[0] for places in firsts if places})
        places = (
            next(
                (place for at in range(end, stop) if (place := encoded.char_to_token(row, at)) is not None),
                None,
            )
            for end, stop in pairwise([*ends, len(text)])
        )
        return [place for place in places if place is not None]

    def spans(self, text: str) -> list[Span]:
        """Return the character span in `text` of each token of `tokenize([text])`.

        The span is (0, 0) for special tokens and padding. If the tokenizer does not report offsets (as in SigLIP), each
        word is tokenized separately. If the result differs from the tokens of the whole text, every token gets the span
        of the whole text.
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
            _one_line(texts) if isinstance(texts, str) else [_one_line(text) for text in texts],
            padding="max_length" if self.text_format.fixed_length else "longest",
            padding_side="right",
            truncation=True,
            max_length=self.text_format.max_tokens,
            **options,
        )

    def blank(self, count: int, file: Path | None = None) -> PictureInput:
        """Allocate space for decoded pictures; see `PictureDecoder.blank`."""
        return self.decoder.blank(count, file)

    def decode(self, picture: Image.Image, into: PictureInput, row: int) -> None:
        """Decode a picture; see `PictureDecoder.decode`."""
        self.decoder.decode(picture, into, row)

    def shown(self, width: int, height: int) -> Box:
        """Return the part of a picture that is kept; see `PictureDecoder.shown`."""
        return self.decoder.shown(width, height)

    def normalise(self, pictures: PictureInput) -> PictureInput:
        """Rescale and normalise the pixels on their current device."""
        processor, pixels = self.image_processor, pictures.pixels.float()
        if processor.do_rescale:
            pixels = pixels * processor.rescale_factor
            if getattr(processor, "rescale_offset", False):  # EfficientNet: from -1 to 1
                pixels = pixels - 1
        # EfficientNet may divide by the standard deviation once more, for its classifier.
        again = getattr(processor, "include_top", False)
        if processor.do_normalize or again:
            mean, std = (
                torch.tensor(values).to(pixels.device, non_blocking=True)
                for values in (processor.image_mean, processor.image_std)
            )
            if len(self.decoder.shape) == 3:
                mean, std = mean[:, None, None], std[:, None, None]
            else:  # a patch holds its pixels row by row, with the three colours of a pixel side by side
                mean, std = (channels.repeat(self.decoder.shape[-1] // 3) for channels in (mean, std))
            pixels = (pixels - mean) / std if processor.do_normalize else pixels
            pixels = pixels / std if again else pixels
        return PictureInput(pixels, pictures.grid)


def _one_line(text: str) -> str:
    """Replace the line breaks between the fields with spaces, which not every tokenizer does itself."""
    return text.replace(FIELD_END, ". ")


def _train_tokenizer(texts: Iterable[str], vocabulary: int) -> CLIPTokenizer:
    """Train a byte-level BPE tokenizer with `vocabulary` tokens, deterministically."""
    blank = CLIPTokenizer()
    symbols = sorted(ByteLevel.alphabet())
    # CLIP's BPE marks the last byte of a word. The marked bytes are declared as "special" for two reasons. First, all
    # of them must exist: otherwise, a word could not be encoded if no word in `texts` ends with the same byte. Second,
    # their IDs must be fixed: if the trainer assigned them, the IDs and the merges that depend on them would differ
    # from run to run.
    marked = [f"{symbol}</w>" for symbol in symbols]
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[blank.bos_token, blank.eos_token, *marked],
        initial_alphabet=symbols,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend = blank.backend_tokenizer
    backend.train_from_iterator(map(_one_line, texts), trainer)
    learnt = json.loads(backend.to_str())["model"]
    # CLIPTokenizer annotates merges as strings, but it accepts pairs.
    merges: Any = [tuple(merge) for merge in learnt["merges"]]
    return CLIPTokenizer(vocab=learnt["vocab"], merges=merges, model_max_length=MAX_TOKENS)
