"""Several shops in one server: each answers from its own index, and what happens to one does not touch the others."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from model.errors import InputError
from service.http.limits import BodyLimits, shop_of
from service.middleware.api_keys import Keys, make_key
from service.settings import KeyConfig, ServeConfig
from service.shops import Shops, shop_configs
from tests.indexes.fakes import FakeEncoder, write_shop
from tests.service.conftest import served as served_alone
from tests.service.conftest import wait_until_ready
from tests.service.shops import build_index


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Build the indexes `accented` and `plain` of the same items, whose text vectors differ."""
    shop = write_shop(tmp_path / "made")
    for name, accent in (("plain", ""), ("accented", "'")):
        build_index(shop, tmp_path / "indexes" / name, shop.checkpoint, accent)
    return tmp_path / "indexes"


@contextmanager
def served(config: ServeConfig) -> Iterator[TestClient]:
    app = Shops(config, lambda *_: FakeEncoder())
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until_ready(client)
        yield client


def answer(client: TestClient, prefix: str = "") -> Any:
    """Return the results for an item by its text vector, the view in which the two indexes differ."""
    asked = {"item_id": "bib", "relation": "gardeners", "similarity": "TT", "k": 5}
    response = client.post(f"{prefix}/retrieve", json=asked)
    assert response.status_code == 200, response.text
    return [(result["score"], {**result["item"], "image_url": None}) for result in response.json()["results"]]


def test_each_shop_answers_as_a_server_of_its_own(folder: Path) -> None:
    with served(ServeConfig(index=folder, shops=True)) as client:
        together = {name: answer(client, f"/shops/{name}") for name in ("plain", "accented")}
        info = {name: client.get(f"/shops/{name}/info").json()["index"] for name in together}
    assert together["plain"] != together["accented"]
    assert info["plain"] != info["accented"]
    for name, results in together.items():
        with served_alone(ServeConfig(index=folder / name)) as client:
            assert answer(client) == results


def test_addresses_of_pictures_begin_with_prefix_and_shop(folder: Path) -> None:
    with served(ServeConfig(index=folder, shops=True, root_path="/search")) as client:
        item = client.get("/search/shops/plain/items/bib").json()
        assert item["image_url"] == "/search/shops/plain/items/bib/image"
        assert client.get(item["image_url"]).status_code == 200
        # A proxy may also remove the prefix.
        assert client.get("/shops/plain/items/bib").json() == item


def test_address_of_a_shop_leads_to_its_explorer(folder: Path) -> None:
    with served(ServeConfig(index=folder, shops=True)) as client:
        led = client.get("/shops/plain?item=bib", follow_redirects=False)
        assert (led.status_code, led.headers["location"]) == (307, "/shops/plain/?item=bib")
        assert "<title>" in client.get("/shops/plain").text
        assert client.get("/shops/plain/docs").status_code == 200
        assert client.get("/shops/plain/static/explorer/explorer.js").status_code == 200


def test_a_change_reaches_only_the_shop_that_is_named(folder: Path) -> None:
    with served(ServeConfig(index=folder, shops=True)) as client:
        put = client.put("/shops/plain/items/new", json={"title": "A new thing"})
        assert put.status_code == 201, put.text
        assert client.get("/shops/plain/items/new").status_code == 200
        assert client.get("/shops/accented/items/new").status_code == 404
        counts = [client.get(f"/shops/{name}/readyz").json()["items"] for name in ("plain", "accented")]
        assert counts[0] == counts[1] + 1


def test_a_shop_that_cannot_be_opened_does_not_stop_the_others(folder: Path) -> None:
    (folder / "accented" / "generation-000001" / "relations.json").write_text("[]")
    with served(ServeConfig(index=folder, shops=True)) as client:
        assert client.get("/readyz").json() == {"status": "ready", "shops": ["plain"], "failed": ["accented"]}
        assert client.get("/shops/plain/readyz").status_code == 200
        refused = client.get("/shops/accented/readyz")
        assert refused.status_code == 503
        assert "relations.json" in refused.json()["detail"]


@pytest.mark.parametrize(
    "path", ["/shops/other/items", "/shops/", "/shops", "/items", "/", "/shops/plainx/items"]
)
def test_paths_outside_of_shops_are_unknown(folder: Path, path: str) -> None:
    with served(ServeConfig(index=folder, shops=True)) as client:
        for method in ("GET", "POST", "DELETE"):
            response = client.request(method, path)
            assert response.status_code == 404
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["detail"].startswith(f"{path} belongs to no shop of this server.")
        assert client.head("/livez").status_code == client.get("/livez").status_code == 200


@pytest.mark.parametrize("path", ["/readyz", "/livez", "/nothing", "/shops/plain/readyz"])
def test_without_keys_no_host_that_someone_else_could_own_is_answered(folder: Path, path: str) -> None:
    """A page of another site that resolves its own name to 127.0.0.1 must not read the names of the shops."""
    config = ServeConfig(index=folder, shops=True, allowed_hosts=("shop.example",))
    with served(config) as client:
        assert client.get(path, headers={"Host": "other.example"}).status_code == 421
        assert client.get(path, headers={"Host": "shop.example"}).status_code in (200, 404)


def test_files_and_hidden_folders_are_not_shops(folder: Path) -> None:
    for name in (".snapshot", "lost+found"):
        (folder / name).mkdir()
    (folder / "README.md").write_text("Our shops.")
    configs = shop_configs(ServeConfig(index=folder, shops=True, root_path="/search"))
    assert {name: (made.index, made.root_path) for name, made in configs.items()} == {
        "accented": (folder / "accented", "/search/shops/accented"),
        "plain": (folder / "plain", "/search/shops/plain"),
    }


@pytest.mark.parametrize("name", ["my shop", "café", "-x", "a" * 65, "a%2fb"])
def test_refuses_folder_name_that_is_not_part_of_an_address(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="cannot be the name of a shop") as refusal:
        shop_configs(ServeConfig(index=tmp_path, shops=True))
    assert repr(name) in str(refusal.value)


def test_refuses_folder_without_shops_and_options_of_one_index(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no subfolders"):
        shop_configs(ServeConfig(index=tmp_path, shops=True))
    with pytest.raises(InputError, match="absent cannot be read: No such file"):
        shop_configs(ServeConfig(index=tmp_path / "absent", shops=True))
    with pytest.raises(InputError, match="--checkpoint belongs to one index"):
        shop_configs(ServeConfig(index=tmp_path, shops=True, checkpoint=tmp_path))
    with pytest.raises(InputError, match="--report belongs to one index"):
        shop_configs(ServeConfig(index=tmp_path, shops=True, report=tmp_path))


def test_bulk_uploads_of_a_shop_have_the_limit_of_bulk_uploads() -> None:
    limits = BodyLimits(body=1, upload=2, streaming=3, prefix="/search", shops=True)
    for prefix in ("", "/search"):
        assert limits.longest("POST", f"{prefix}/shops/toys/items/bulk", "") == 3
        assert limits.longest("POST", f"{prefix}/shops/toys/retrieve", "") == 1
    assert limits.longest("POST", "/items/bulk/", "") == 1
    assert BodyLimits(body=1, streaming=3).longest("POST", "/shops/toys/items/bulk", "") == 1


def test_name_of_a_shop_is_the_step_after_shops() -> None:
    assert shop_of("/shops/toys/items") == "toys"
    assert shop_of("/search/shops/toys", "/search") == "toys"
    assert shop_of("/shops/toys", "/search") == "toys"
    assert shop_of("/shopsx/toys") == shop_of("/items/shops/toys") == shop_of("/shops") == ""


def test_a_key_reaches_only_the_shops_it_is_for(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, secrets = [], {}
    for name, shops in (("all", ()), ("mine", ("plain",)), ("others", ("accented", "toys"))):
        lines.append(make_key(KeyConfig(name=name, shops=shops)))
        secrets[name] = capsys.readouterr().err.split()[-1]
    keys = tmp_path / "keys"
    keys.write_text("\n".join(lines))
    with served(ServeConfig(index=folder, shops=True, keys=keys)) as client:
        reached = {
            (name, shop): client.get(
                f"/shops/{shop}/items", headers={"Authorization": f"Bearer {secret}"}
            ).status_code
            for name, secret in secrets.items()
            for shop in ("plain", "accented")
        }
    assert reached == {
        ("all", "plain"): 200,
        ("all", "accented"): 200,
        ("mine", "plain"): 200,
        ("mine", "accented"): 401,
        ("others", "plain"): 401,
        ("others", "accented"): 200,
    }


def test_keys_from_a_pipe_are_read_once_for_all_shops(folder: Path) -> None:
    """A shell passes a pipe for `--keys <(decrypt keys)`."""
    reading, writing = os.pipe()
    os.write(writing, f"shop read {sha256(b'the-key-of-the-shop').hexdigest()}".encode())
    os.close(writing)
    with served(ServeConfig(index=folder, shops=True, keys=Path(f"/dev/fd/{reading}"))) as client:
        headers = {"X-API-Key": "the-key-of-the-shop"}
        for shop in ("plain", "accented"):
            assert client.get(f"/shops/{shop}/items", headers=headers).status_code == 200
            assert client.get(f"/shops/{shop}/items").status_code == 401
    os.close(reading)


def test_a_shop_for_which_no_key_is_made_is_not_open(folder: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(make_key(KeyConfig(name="other", shops=("toys",))))
    with served(ServeConfig(index=folder, shops=True, keys=keys)) as client:
        assert client.get("/shops/plain/items").status_code == 401
        assert client.delete("/shops/plain/items/bib").status_code == 401
    with served_alone(ServeConfig(index=folder / "plain", keys=keys)) as client:
        assert client.get("/items").status_code == 401


@pytest.mark.parametrize("shops", ["toys,", "to/ys", ",", "toys,a b"])
def test_refuses_key_for_what_cannot_be_a_shop(tmp_path: Path, shops: str) -> None:
    (tmp_path / "keys").write_text(f"shop read {'0' * 64} {shops}")
    with pytest.raises(InputError, match=r"Line 1 of .* does not have the form"):
        Keys.open(ServeConfig(index=tmp_path, keys=tmp_path / "keys"))
    with pytest.raises(InputError, match="cannot be the name of a shop"):
        make_key(KeyConfig(name="shop", shops=("to/ys",)))
