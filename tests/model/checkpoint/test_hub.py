"""A checkpoint goes to the Hub and comes back the same; what cannot be had is refused in words."""

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
    """A Hub that was there and no longer is."""
    with fake_hub(tmp_path / "home", monkeypatch):
        pass


# Pushing.


def test_what_is_pushed_comes_back_by_name(encoder: Encoder, hub: FakeHub) -> None:
    encoder.push_to_hub(NAME)
    again = Encoder.from_pretrained(NAME, "cpu")
    texts, pictures = ["red mug", ""], [Image.new("RGB", (40, 30), colour) for colour in ("red", "green")]
    expected, found = (one.encode_items(texts, pictures) for one in (encoder, again))
    np.testing.assert_array_equal(found.text, expected.text)
    np.testing.assert_array_equal(found.image, expected.image)
    np.testing.assert_array_equal(again.relation_vectors, encoder.relation_vectors)


def test_a_push_is_one_commit_of_all_files_byte_for_byte(
    encoder: Encoder, hub: FakeHub, files: dict[str, bytes]
) -> None:
    url = encoder.push_to_hub(NAME, commit_message="Spring collection")
    [(oid, pushed)] = hub.repos[NAME].commits.items()
    assert pushed == files
    assert hub.repos[NAME].messages == ["Spring collection"]
    assert url == f"{hub.url}/{NAME}/commit/{oid}"


def test_a_second_push_goes_to_the_same_repository(encoder: Encoder, hub: FakeHub) -> None:
    first, second = encoder.push_to_hub(NAME), encoder.push_to_hub(NAME)
    assert first != second
    assert len(hub.repos[NAME].commits) == 2


@pytest.mark.parametrize("private", [True, False])
def test_a_repository_is_as_private_as_asked(private: bool, encoder: Encoder, hub: FakeHub) -> None:
    encoder.push_to_hub(NAME, private=private)
    assert hub.repos[NAME].private is private


def test_the_token_goes_to_the_hub_and_into_no_file_or_message(
    encoder: Encoder, hub: FakeHub, capfd: pytest.CaptureFixture[str]
) -> None:
    url = encoder.push_to_hub(NAME)
    assert {token for _, path, token in hub.requests if path.startswith("/api/models")} == {TOKEN}
    assert not [
        name for name, content in hub.repos[NAME].commits.popitem()[1].items() if TOKEN.encode() in content
    ]
    assert TOKEN not in url + "".join(capfd.readouterr())


def test_a_push_leaves_no_copy_behind(
    encoder: Encoder, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    encoder.push_to_hub(NAME)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_push_without_a_login_says_how_to_log_in(
    encoder: Encoder, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match=rf"{NAME}.*[lL]og in with `hf auth login`, or set HF_TOKEN"):
        encoder.push_to_hub(NAME)
    assert hub.repos == {}


def test_a_push_to_someone_elses_name_says_what_the_hub_said(encoder: Encoder, hub: FakeHub) -> None:
    with pytest.raises(InputError, match=r"refused others/shop with status 403 \(You don't have the rights"):
        encoder.push_to_hub("others/shop")


def test_a_push_under_an_impossible_name_is_refused(encoder: Encoder, hub: FakeHub) -> None:
    with pytest.raises(InputError, match="'ann/shop/spring' is no name on the Hub, owner/name"):
        encoder.push_to_hub("ann/shop/spring")
    assert hub.requests == []


@pytest.mark.usefixtures("offline")
def test_a_push_to_a_hub_that_is_down_says_so(encoder: Encoder) -> None:
    with pytest.raises(
        InputError, match=rf"The Hub could not be reached for {NAME} \(.*Check the connection"
    ):
        encoder.push_to_hub(NAME)


# Fetching.


def test_only_the_files_of_the_manifest_are_fetched(hub: FakeHub, files: dict[str, bytes]) -> None:
    strange = {".gitattributes": b"*", "pytorch_model.bin": b"pickled", "special_tokens_map.json": b"{}"}
    hub.repos[NAME] = Repo()
    hub.repos[NAME].commit(files | strange)
    Encoder.from_pretrained(NAME, "cpu")
    assert hub.fetched() == set(files)


def test_a_revision_is_fetched_as_it_was(
    encoder: Encoder, hub: FakeHub, checkpoints: dict[str, Path]
) -> None:
    first = encoder.push_to_hub(NAME).rpartition("/")[2]
    Encoder.from_pretrained(checkpoints["blind"], "cpu").push_to_hub(NAME)
    assert Encoder.from_pretrained(NAME, "cpu").network.config.objective == "blind"
    assert Encoder.from_pretrained(NAME, "cpu", revision=first).network.config.objective == "rcml"


def test_a_model_card_edited_on_the_hub_leaves_the_checkpoint_usable(
    encoder: Encoder, hub: FakeHub, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    encoder.push_to_hub(NAME)
    hub.repos[NAME].commit({"README.md": b"# Edited in the browser\n"})
    Encoder.from_pretrained(NAME, "cpu").save_pretrained(tmp_path / "again")
    again = Checkpoint.open(tmp_path / "again")
    assert again.card == "# Edited in the browser\n"
    assert again.manifest.digest == Checkpoint.open(checkpoints["rcml"]).manifest.digest


def test_a_file_that_was_damaged_on_the_hub_is_named(hub: FakeHub, files: dict[str, bytes]) -> None:
    hub.repos[NAME] = Repo()
    hub.repos[NAME].commit(files | {"model.safetensors": files["model.safetensors"][:-1] + b"\xff"})
    with pytest.raises(ArtifactError, match=r"model\.safetensors is not the file that was written"):
        Encoder.from_pretrained(NAME, "cpu")


def test_a_file_that_was_deleted_on_the_hub_is_named(hub: FakeHub, files: dict[str, bytes]) -> None:
    del files["relations.json"]
    hub.repos[NAME] = Repo()
    hub.repos[NAME].commit(files)
    with pytest.raises(ArtifactError, match=r"relations\.json is missing although the manifest lists it"):
        Encoder.from_pretrained(NAME, "cpu")


def test_a_private_checkpoint_is_fetched_with_the_token(encoder: Encoder, hub: FakeHub) -> None:
    encoder.push_to_hub(NAME, private=True)
    assert Encoder.from_pretrained(NAME, "cpu").relations == encoder.relations


def test_an_unknown_name_is_refused_and_named(hub: FakeHub) -> None:
    with pytest.raises(ArtifactError, match=r"The Hub has no model 'ann/none', or it is private\. Check"):
        Encoder.from_pretrained("ann/none")


def test_a_private_checkpoint_without_a_token_is_refused_as_unknown(
    encoder: Encoder, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder.push_to_hub(NAME, private=True)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(
        ArtifactError, match=r"if it is private, log in with `hf auth login`, or set HF_TOKEN"
    ):
        Encoder.from_pretrained(NAME)


def test_a_gated_checkpoint_says_whom_to_ask(hub: FakeHub) -> None:
    hub.repos[NAME] = Repo(gated=True)
    with pytest.raises(
        ArtifactError, match=rf"{NAME} is gated: ask its owner for access on its page, then log"
    ):
        Encoder.from_pretrained(NAME)


def test_an_unknown_revision_is_named(encoder: Encoder, hub: FakeHub) -> None:
    encoder.push_to_hub(NAME)
    with pytest.raises(
        ArtifactError, match=rf"{NAME} on the Hub has no revision 'v9'\. Name a branch, a tag"
    ):
        Encoder.from_pretrained(NAME, revision="v9")


def test_a_model_that_is_no_checkpoint_of_ours_is_refused_before_its_weights_are_fetched(
    hub: FakeHub,
) -> None:
    hub.repos["openai/clip"] = Repo()
    hub.repos["openai/clip"].commit({"config.json": b"{}", "model.safetensors": b"much"})
    with pytest.raises(
        ArtifactError, match=r"openai/clip on the Hub has no manifest\.json, so it is not a ch"
    ):
        Encoder.from_pretrained("openai/clip")
    assert hub.fetched() == set()


def test_an_artifact_of_another_kind_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    with write_artifact(tmp_path / "shop", "shop", ShopConfig(out=tmp_path)):
        pass
    hub.repos[NAME] = Repo()
    hub.repos[NAME].commit({path.name: path.read_bytes() for path in (tmp_path / "shop").iterdir()})
    with pytest.raises(ArtifactError, match="is a shop, where a checkpoint is needed"):
        Encoder.from_pretrained(NAME)


@pytest.mark.usefixtures("offline")
def test_a_hub_that_is_down_is_said_to_be() -> None:
    with pytest.raises(
        ArtifactError, match=rf"The Hub could not be reached for {NAME} \(.*or name a local fo"
    ):
        Encoder.from_pretrained(NAME)


def test_a_checkpoint_fetched_before_is_used_while_the_hub_is_down(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_hub(tmp_path / "home", monkeypatch):
        encoder.push_to_hub(NAME)
        Encoder.from_pretrained(NAME, "cpu")
    assert Encoder.from_pretrained(NAME, "cpu").relations == encoder.relations


def test_a_folder_of_the_same_name_comes_before_the_hub(
    hub: FakeHub, checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copytree(checkpoints["rcml"], tmp_path / NAME)
    monkeypatch.chdir(tmp_path)
    Encoder.from_pretrained(NAME, "cpu")
    assert hub.requests == []
