"""Tests of Qwen3-VL-Embedding on a tiny random model of the same architecture.

They are skipped without sentence-transformers and torchvision, which the extra `systems` installs.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLModel, Qwen3VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from model.data.pictures.images import load_picture
from model.errors import InputError
from model.records import Relation
from model.systems.families import open_system
from model.systems.optional_package import import_optional
from model.systems.system import Passes

from .releases import draw_picture, unit

RELATIONS = (Relation("colour", "the same colour"), Relation("user", "the user"))
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
PICTURE, VIDEO = "<|image_pad|>", "<|video_pad|>"
WORDS = (
    "[UNK]",
    *SPECIAL,
    PICTURE,
    VIDEO,
    "system",
    "user",
    "red",
    "mug",
    "blue",
    "kites",
    "the",
    "same",
    "colour",
)
TEMPLATE = (
    "{% for one in messages %}<|im_start|> {{ one['role'] }} {% for part in one['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>{% endfor %}"
)
PATCH = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the model as sentence-transformers does; `base` contains it in the format of transformers."""
    try:
        package = import_optional("sentence_transformers")
        import_optional("torchvision")
    except InputError as error:
        pytest.skip(str(error))
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

    path = tmp_path_factory.mktemp("qwen")
    ids = {word: row for row, word in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="[UNK]",
        pad_token=SPECIAL[0],
        additional_special_tokens=[*SPECIAL, PICTURE, VIDEO],
    )
    pictures = Qwen2VLImageProcessorPil(patch_size=PATCH, merge_size=2, min_pixels=64, max_pixels=1024)
    videos = Qwen3VLVideoProcessor(patch_size=PATCH)
    Qwen3VLProcessor(pictures, tokenizer, videos, chat_template=TEMPLATE).save_pretrained(path / "base")
    write_model(path / "base", ids)
    modules = import_optional("sentence_transformers.sentence_transformer.modules")
    steps = [
        modules.Transformer(str(path / "base")),
        modules.Pooling(32, pooling_mode="lasttoken"),
        modules.Normalize(),
    ]
    package.SentenceTransformer(modules=steps).save(str(path))
    return path


def write_model(path: Path, ids: dict[str, int]) -> None:
    text = {
        "vocab_size": len(WORDS),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10_000.0},
    }
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "patch_size": PATCH,
        "out_hidden_size": 32,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    places: dict[str, Any] = {
        "image_token_id": ids[PICTURE],
        "video_token_id": ids[VIDEO],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }
    torch.manual_seed(0)
    model = Qwen3VLModel(Qwen3VLConfig(text_config=text, vision_config=vision, **places))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.2)
    model.save_pretrained(path)


def vector(folder: Path, instruction: str, content: dict[str, Any]) -> np.ndarray:
    """Return the last state of the chat with the instruction as system message, computed with transformers alone."""
    processor: Any = Qwen3VLProcessor.from_pretrained(folder / "base")
    chat = [
        {"role": "system", "content": [{"type": "text", "text": instruction}]},
        {"role": "user", "content": [content]},
    ]
    inputs = processor.apply_chat_template([chat], tokenize=True, return_dict=True, return_tensors="pt")
    states = Qwen3VLModel.from_pretrained(folder / "base").eval()(**inputs).last_hidden_state
    return unit(states[0, -1])


def test_relation_is_the_instruction_of_texts_and_pictures(folder: Path) -> None:
    picture = draw_picture(folder / "picture.png", 1, (32, 32))
    system = open_system(f"qwen-vl-embedding:{folder}", "cpu")
    found = system.encode(["red mug", "blue kites red mug", ""], [None, picture, None], RELATIONS)
    for place, relation in enumerate(RELATIONS):
        for item, text in enumerate(["red mug", "blue kites red mug"]):
            expected = vector(folder, relation.description, {"type": "text", "text": text})
            np.testing.assert_allclose(found.text[item, place], expected, atol=1e-5)
        shown = vector(folder, relation.description, {"type": "image", "image": load_picture(picture)})
        np.testing.assert_allclose(found.image[1, place], shown, atol=1e-5)
    assert abs(found.image[1, 0] - found.image[1, 1]).max() > 1e-3
    assert not found.image[[0, 2]].any()
    assert not found.text[2].any()


def test_every_input_is_read_again_for_each_relation(folder: Path) -> None:
    system = open_system(f"qwen-vl-embedding:{folder}", "cpu")
    assert system.passes(100, 10) == Passes(text=1000, image=1000)
    assert system.dim == 32


def test_incomplete_folder_is_rejected(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot load|reads"):
        open_system(f"qwen-vl-embedding:{tmp_path}", "cpu")
