"""CLIP's tokenizer and image processor for models that were released without them."""

import gzip
import zlib
from pathlib import Path
from typing import Any

from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from model.errors import InputError
from model.network.processor import MAX_TOKENS, Preprocessor, TextFormat

MERGES_FILE = "bpe_simple_vocab_16e6.txt.gz"
"""File with the merges of CLIP's tokenizer."""

MERGES_SOURCE = "https://github.com/openai/CLIP/blob/main/clip/bpe_simple_vocab_16e6.txt.gz"

MERGES = 48_894
"""Number of merges that CLIP uses: its 49,408 tokens without two for each byte and the two special ones."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def clip_tokenizer(folder: Path, *extra: str) -> CLIPTokenizer:
    """Build CLIP's tokenizer from the merges in `folder`; `extra` are tokens before the two special ones.

    CLIP also repairs broken Unicode and HTML entities before it tokenizes. This is omitted: `rcml prepare` gets plain
    text.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = folder / MERGES_FILE
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    except FileNotFoundError:
        raise InputError(
            f"{folder} lacks the merges of CLIP's tokenizer. Download {MERGES_SOURCE} into this folder."
        ) from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}). Download it again from {MERGES_SOURCE}."
        ) from None
    # The first line is a comment.
    merges: Any = [tuple(line.split()) for line in lines[1 : MERGES + 1] if line]
    symbols = sorted(ByteLevel.alphabet())
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *("".join(pair) for pair in merges)]
    tokens += [*extra, "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: row for row, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


def clip_preprocessor(tokenizer: CLIPTokenizer, max_tokens: int, side: int, **options: Any) -> Preprocessor:
    """Return a preprocessor for texts of `max_tokens` tokens and pictures cropped to `side` x `side` pixels.

    `options` replace the values of CLIP's image processor: bicubic resizing to `side`, and CLIP's mean and deviation.
    """
    processor = CLIPImageProcessorPil(
        **{
            "size": {"shortest_edge": side},
            "crop_size": {"height": side, "width": side},
            "resample": Image.Resampling.BICUBIC,
            **options,
        }
    )
    text_format = TextFormat(max_tokens=max_tokens, fixed_length=False)
    return Preprocessor(tokenizer, processor, text_format, exact_pictures=True)
