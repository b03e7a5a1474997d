"""Tests of the two towers and their inputs: CLIP folders, the small CLIP from scratch, and its tokenizer."""

import json
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from model.encoder.encoder import Encoder
from model.errors import InputError
from model.network.backbones import Backbone
from model.network.inputs import PictureInput, TextInput
from model.network.load_backbone import build_backbone, load_backbone, small_backbone
from model.network.pretrained_tower import load_image_tower, load_text_tower
from model.network.processor import MAX_TOKENS, Preprocessor
from model.training.train import train
from tests.model.checkpoint.fake_hub import fake_hub
from tests.model.planted import TINY, tiny_training


@pytest.fixture(scope="module")
def clip_folder(preprocessor: Preprocessor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a random CLIP in the format of `transformers`."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(5)
    small_backbone(TINY, preprocessor).model.save_pretrained(folder)
    preprocessor.save(folder)
    return folder


def decoded(preprocessor: Preprocessor, picture: Image.Image) -> PictureInput:
    room = preprocessor.blank(1)
    preprocessor.decode(picture, room, 0)
    return room


@torch.inference_mode()
def text_states(backbone: Backbone, preprocessor: Preprocessor) -> torch.Tensor:
    return backbone.eval().text_tokens(preprocessor.tokenize(["red mug", "a green kite"])).states


def test_loads_saved_weights_and_processors_of_clip_folder(
    clip_folder: Path, preprocessor: Preprocessor
) -> None:
    backbone, loaded = load_backbone(str(clip_folder))
    saved = load_file(clip_folder / "model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in backbone.model.state_dict().items())
    assert loaded.tokenize(["A red mug!"]).ids.tolist() == preprocessor.tokenize(["A red mug!"]).ids.tolist()
    picture = Image.effect_noise((50, 40), 90).convert("RGB")
    assert torch.equal(decoded(loaded, picture).pixels, decoded(preprocessor, picture).pixels)


def test_trains_network_from_clip_folder(clip_folder: Path, prepared: Path, tmp_path: Path) -> None:
    config = tiny_training(
        prepared, tmp_path / "out", backbone=str(clip_folder), steps=1, learning_rate=1e-6, weight_decay=0.0
    )
    train(config)
    trained = load_file(config.out / "model.safetensors")["backbone.model.text_projection.weight"]
    start = load_file(clip_folder / "model.safetensors")["text_projection.weight"]
    assert 0 < float((trained - start).abs().max()) < 1e-5


@pytest.fixture
def network_calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Block all network access and return the list of attempts."""
    calls: list[object] = []

    def refuse(*address: object, **_: object) -> None:
        calls.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return calls


@pytest.mark.parametrize("name", ["{}/missing", "./missing/clip", "../missing"])
def test_rejects_missing_folder_without_network_access(
    name: str, tmp_path: Path, network_calls: list[object]
) -> None:
    wanted = name.format(tmp_path)
    with pytest.raises(
        InputError, match=f"No backbone could be loaded from '{wanted}'.*Provide a local folder"
    ):
        load_backbone(wanted)
    assert network_calls == []


def test_rejects_folder_without_weights(tmp_path: Path, network_calls: list[object]) -> None:
    with pytest.raises(InputError, match=f"No backbone could be loaded from '{tmp_path}'"):
        load_backbone(str(tmp_path))
    assert network_calls == []


def test_hub_without_connection_is_named_as_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_hub(tmp_path, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        for load in (load_backbone, Preprocessor.load, load_text_tower, load_image_tower):
            with pytest.raises(
                InputError,
                match=r"^The Hub could not be reached for ann/clip \(.*Check the connection, or use a local folder\.$",
            ):
                load("ann/clip")


def test_rejects_folder_without_tokenizer(
    preprocessor: Preprocessor, tmp_path: Path, network_calls: list[object]
) -> None:
    small_backbone(TINY, preprocessor).model.save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=f"No tokenizer and image processor could be loaded from '{tmp_path}'"
    ):
        load_backbone(str(tmp_path))
    assert network_calls == []


def test_rebuilds_small_backbone_from_json_and_safetensors(
    preprocessor: Preprocessor, tmp_path: Path
) -> None:
    torch.manual_seed(6)
    backbone = small_backbone(TINY, preprocessor)
    save_file(backbone.state_dict(), tmp_path / "weights.safetensors")
    again = build_backbone(json.loads(json.dumps(backbone.config)))
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert again.dim == TINY.width
    assert torch.equal(text_states(again, preprocessor), text_states(backbone, preprocessor))


def test_checkpoint_gives_same_vectors_each_time_it_is_opened(checkpoints: dict[str, Path]) -> None:
    picture = Image.new("RGB", (20, 20), "teal")
    first, second = (
        Encoder.from_pretrained(checkpoints["rcml"], "cpu").encode_items(["teal hat"], [picture])
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.text, second.text)
    np.testing.assert_array_equal(first.image, second.image)


@settings(deadline=None)
@given(st.text().filter(lambda text: "<|" not in text))
def test_tokenizer_encodes_every_text_and_ends_with_eot(preprocessor: Preprocessor, text: str) -> None:
    ids = preprocessor.tokenize([text]).ids[0].tolist()
    start, end = (preprocessor.special_ids[name] for name in ("bos_token_id", "eos_token_id"))
    assert (ids[0], ids[-1]) == (start, end)
    assert not {start, end} & set(ids[1:-1])  # CLIP uses EOT as its unknown token too


@pytest.mark.parametrize("text", ["zyx qqq", "Ünïcödé 漢字", "🦆🚲", "snake_case-é!", "ﷺ", "a" * 40])
def test_unseen_words_keep_every_byte(preprocessor: Preprocessor, text: str) -> None:
    ids = preprocessor.tokenize([text]).ids[0, 1:-1]
    kept = preprocessor.tokenizer.decode(ids)
    assert "".join(kept.split()) == "".join(text.lower().split())


def test_truncates_long_text_to_77_tokens_and_keeps_eot(preprocessor: Preprocessor) -> None:
    text = preprocessor.tokenize(["red mug " * 100, "hat"])
    end = preprocessor.special_ids["eos_token_id"]
    assert text.mask.sum(dim=1).tolist()[0] == MAX_TOKENS == 77
    assert [int(ids[mask][-1]) for ids, mask in zip(text.ids, text.mask, strict=True)] == [end, end]


def test_taken_rows_are_padded_only_to_their_longest_text() -> None:
    ids = torch.arange(12).view(3, 4)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
    fields = torch.tensor([[0, 1, 2, 2], [0, 1, 1, 1], [0, 0, 0, 0]])
    part = TextInput(ids, mask, fields).take(torch.tensor([2, 1]))
    assert part.ids.tolist() == [[8, 9], [4, 5]]
    assert part.fields.tolist() == [[0, 0], [0, 1]]
    assert part.mask.tolist() == [[True, False], [True, True]]


def test_summary_token_is_eot_for_text_and_cls_for_picture(preprocessor: Preprocessor) -> None:
    backbone = small_backbone(TINY, preprocessor).eval()
    text = preprocessor.tokenize(["hat", "a green kite in the wind"])
    summary = backbone.text_tokens(text).summary
    ends = text.ids.gather(1, summary[:, None])[:, 0]
    assert ends.tolist() == [preprocessor.special_ids["eos_token_id"]] * 2
    image = backbone.image_tokens(PictureInput(torch.zeros(1, 3, 32, 32), torch.zeros(1, 2)))
    assert (image.summary.tolist(), image.mask.all().item(), image.states.shape[1]) == ([0], True, 1 + 4)


def test_normalised_uint8_pixels_match_image_processor(
    preprocessor: Preprocessor,
) -> None:
    picture = Image.effect_noise((32, 32), 90).convert("RGB")
    expected = preprocessor.image_processor(picture, return_tensors="pt")["pixel_values"]
    ours = preprocessor.normalise(decoded(preprocessor, picture))
    torch.testing.assert_close(ours.pixels, expected, rtol=0, atol=1e-5)
