"""Tests of pushing checkpoints to the Hub and fetching them, and of the messages of failed attempts."""

from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from PIL import Image

from model.artifact import write_artifact
from model.checkpoint.checkpoint import Checkpoint
from model.config import ShopConfig
from model.encoder.encoder import Encoder
from model.errors import ArtifactError, InputError

from .fake_hub import TOKEN, FakeHub, Repo, fake_hub

NAME = "ann/shop"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub(tmp_path / "home", monkeypatch) as hub:
        yield hub


@pytest.fixture(scope="module")
def encoder(checkpoints: dict[str, Path]) -> Encoder:
    return Encoder.from_pretrained(checkpoints["rcml"], "cpu")


@pytest.fixture
def files(checkpoints: dict[str, Path]) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in checkpoints["rcml"].iterdir()}


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a Hub and stop it again, so that it cannot be reached."""
    with fake_hub(tmp_path / "home", monkeypatch):
        pass


# Pushing.


def test_loads_pushed_encoder_by_name(encoder: Encoder, hub: FakeHub) -> None:
    encoder.push_to_hub(NAME)
    again = Encoder.from_pretrained(NAME, "cpu")
    texts, pictures = ["red mug", ""], [Image.new("RGB", (40, 30), colour) for colour in ("red", "green")]
    expected, found = (one.encode_items(texts, pictures) for one in (encoder, again))
    np.testing.assert_array_equal(found.text, expected.text)
    np.testing.assert_array_equal(found.image, expected.image)
    np.testing.assert_array_equal(again.relation_vectors, encoder.relation_vectors)


def test_push_is_one_commit_of_all_files_byte_for_byte(
    encoder: Encoder, hub: FakeHub, files: dict[str, bytes]
) -> None:
    url = encoder.push_to_hub(NAME, commit_message="Spring collection")
    [(oid, pushed)] = hub.repos[NAME].commits.items()
    assert pushed == files
    assert hub.repos[NAME].messages == ["Spring collection"]
    assert url == f"{hub.url}/{NAME}/commit/{oid}"


def test_second_push_goes_to_same_repository(encoder: Encoder, hub: FakeHub) -> None:
    first, second = encoder.push_to_hub(NAME), encoder.push_to_hub(NAME)
    assert first != second
    assert len(hub.repos[NAME].commits) == 2


@pytest.mark.parametrize("private", [True, False])
def test_push_creates_repository_with_requested_privacy(
    private: bool, encoder: Encoder, hub: FakeHub
) -> None:
    encoder.push_to_hub(NAME, private=private)
    assert hub.repos[NAME].private is private


def test_push_sends_token_only_to_the_hub(
    encoder: Encoder, hub: FakeHub, capfd: pytest.CaptureFixture[str]
) -> None:
    url = encoder.push_to_hub(NAME)
    assert {token for _, path, token in hub.requests if path.startswith("/api/models")} == {TOKEN}
    assert not [
        name for name, content in hub.repos[NAME].commits.popitem()[1].items() if TOKEN.encode() in content
    ]
    assert TOKEN not in url + "".join(capfd.readouterr())


def test_push_leaves_no_temporary_files(
    encoder: Encoder, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    encoder.push_to_hub(NAME)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_push_without_login_explains_how_to_log_in(
    encoder: Encoder, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match=rf"{NAME}.*[lL]og in with `hf auth login`, or set HF_TOKEN"):
        encoder.push_to_hub(NAME)
    assert hub.repos == {}


def test_push_without_rights_reports_message_of_the_hub(encoder: Encoder, hub: FakeHub) -> None:
    with pytest.raises(
        InputError, match=r"rejected the request for others/shop with status 403 \(You don't have the rights"
    ):
        encoder.push_to_hub("others/shop")


def test_push_rejects_invalid_name(encoder: Encoder, hub: FakeHub) -> None:
    with pytest.raises(
        InputError, match=r"'ann/shop/spring' is not a valid name on the Hub\. Use the form owner/name"
    ):
        encoder.push_to_hub("ann/shop/spring")
    assert hub.requests == []


@pytest.mark.usefixtures("offline")
def test_push_reports_unreachable_hub(encoder: Encoder) -> None:
    with pytest.raises(
        InputError, match=rf"The Hub could not be reached for {NAME} \(.*Check the connection"
    ):
        encoder.push_to_hub(NAME)


# Fetching.


def test_fetches_only_files_of_the_manifest(hub: FakeHub, files: dict[str, bytes]) -> None:
    strange = {".gitattributes": b"*", "pytorch_model.bin": b"pickled", "special_tokens_map.json": b"{}"}
    hub.repos[NAME] = Repo()
    hub.repos[NAME].commit(files | strange)
    Encoder.from_pretrained(NAME, "cpu")
    assert hub.fetched() == set(files)


def test_fetches_requested_revision(encoder: Encoder, hub: FakeHub, checkpoints: dict[str, Path]) -> None:
    first = encoder.push_to_hub(NAME).rpartition("/")[2]
    Encoder.from_pretrained(checkpoints["blind"], "cpu").push_to_hub(NAME)
    assert Encoder.from_pretrained(NAME, "cpu").network.config.objective == "blind"
    assert Encoder.from_pretrained(NAME, "cpu", revision=first).network.config.objective == "rcml"


def test_checkpoint_stays_usable_after_model_card_was_edited_on_the_hub(
    encoder: Encoder, hub: FakeHub, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    encoder.push_to_hub(NAME)
    hub.repos[NAME].commit({"README.md": b"# Edited in the browser\n"})
    Encoder.from_pretrained(NAME, "cpu").save_pretrained(tmp_path / "again")
    again = Checkpoint.open(tmp_path / "again")
    assert again.card == "# Edited in the browser\n"
    assert again.manifest.digest == Checkpoint.open(checkpoints["rcml"]).manifest.digest


def test_reports_file_damaged_on_the_hub(hub: FakeHub, files: dict[str, bytes]) -> None:
    hub.repos[NAME] = Repo()
    hub.repos[NAME].commit(files | {"model.safetensors": files["model.safetensors"][:-1] + b"\xff"})
    with pytest.raises(ArtifactError, match=r"model\.safetensors was changed after it was written"):
        Encoder.from_pretrained(NAME, "cpu")


def test_reports_file_deleted_on_the_hub(hub: FakeHub, files: dict[str, bytes]) -> None:
    del files["relations.json"]
    hub.repos[NAME] = Repo()
    hub.repos[NAME].commit(files)
    with pytest.raises(ArtifactError, match=r"relations\.json is missing although the manifest lists it"):
        Encoder.from_pretrained(NAME, "cpu")


def test_fetches_private_checkpoint_with_token(encoder: Encoder, hub: FakeHub) -> None:
    encoder.push_to_hub(NAME, private=True)
    assert Encoder.from_pretrained(NAME, "cpu").relations == encoder.relations


def test_fetch_reports_unknown_name(hub: FakeHub) -> None:
    with pytest.raises(ArtifactError, match=r"The Hub has no model 'ann/none', or it is private\. Check"):
        Encoder.from_pretrained("ann/none")


def test_fetch_of_private_checkpoint_without_token_suggests_login(
    encoder: Encoder, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder.push_to_hub(NAME, private=True)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(
        ArtifactError, match=r"If it is private, log in with `hf auth login`, or set HF_TOKEN"
    ):
        Encoder.from_pretrained(NAME)


def test_fetch_of_gated_checkpoint_explains_how_to_get_access(hub: FakeHub) -> None:
    hub.repos[NAME] = Repo(gated=True)
    with pytest.raises(
        ArtifactError, match=rf"{NAME} is gated\. Request access on its page on the Hub, then log"
    ):
        Encoder.from_pretrained(NAME)


def test_fetch_reports_unknown_revision(encoder: Encoder, hub: FakeHub) -> None:
    encoder.push_to_hub(NAME)
    with pytest.raises(
        ArtifactError, match=rf"{NAME} on the Hub has no revision 'v9'\. Use one of its branches"
    ):
        Encoder.from_pretrained(NAME, revision="v9")


def test_rejects_other_models_before_fetching_their_weights(
    hub: FakeHub,
) -> None:
    hub.repos["openai/clip"] = Repo()
    hub.repos["openai/clip"].commit({"config.json": b"{}", "model.safetensors": b"much"})
    with pytest.raises(
        ArtifactError, match=r"openai/clip on the Hub has no manifest\.json, so it is not an rcml ch"
    ):
        Encoder.from_pretrained("openai/clip")
    assert hub.fetched() == set()


def test_rejects_artifact_of_another_kind(hub: FakeHub, tmp_path: Path) -> None:
    with write_artifact(tmp_path / "shop", "shop", ShopConfig(out=tmp_path)):
        pass
    hub.repos[NAME] = Repo()
    hub.repos[NAME].commit({path.name: path.read_bytes() for path in (tmp_path / "shop").iterdir()})
    with pytest.raises(ArtifactError, match="is a shop, but a checkpoint is required"):
        Encoder.from_pretrained(NAME)


@pytest.mark.usefixtures("offline")
def test_fetch_reports_unreachable_hub() -> None:
    with pytest.raises(
        ArtifactError, match=rf"The Hub could not be reached for {NAME} \(.*or use a local fo"
    ):
        Encoder.from_pretrained(NAME)


def test_uses_cached_checkpoint_if_hub_is_unreachable(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_hub(tmp_path / "home", monkeypatch):
        encoder.push_to_hub(NAME)
        Encoder.from_pretrained(NAME, "cpu")
    assert Encoder.from_pretrained(NAME, "cpu").relations == encoder.relations


def test_prefers_local_folder_to_hub_repository_of_same_name(
    hub: FakeHub, checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copytree(checkpoints["rcml"], tmp_path / NAME)
    monkeypatch.chdir(tmp_path)
    Encoder.from_pretrained(NAME, "cpu")
    assert hub.requests == []
