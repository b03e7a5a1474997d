"""API keys: sources of keys, invalid keys, and the conditions under which a server may run without keys."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InputError
from service.cli import main
from service.http.route_rules import Role
from service.middleware.api_keys import Key, Keys, is_loopback
from service.settings import ServeConfig

SECRET = "correct-horse-battery-staple"
OTHER = "another-horse-another-staple"


def opened(**options: Any) -> Keys:
    return Keys.open(ServeConfig(index=Path("index"), **options))


def in_file(folder: Path, *lines: str) -> Path:
    path = folder / "keys"
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def test_keys_from_the_environment_are_named_by_role_and_position(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCML_READ_KEYS", f"{'a' * 16}, {'b' * 16}")
    monkeypatch.setenv("RCML_ADMIN_KEYS", f'["{SECRET}"]')
    keys = opened()
    assert len(keys) == 3
    assert keys.find(b"b" * 16) == Key("read-2", Role.READ)
    assert keys.find(SECRET.encode()) == Key("admin-1", Role.ADMIN)
    assert keys.find(OTHER.encode()) is None


def test_an_empty_variable_holds_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCML_READ_KEYS", "")
    assert not opened()


def test_a_key_from_a_file_is_found_by_its_digest(tmp_path: Path) -> None:
    path = in_file(tmp_path, "# ours", "", f"shop read {digest(SECRET)}", f"ops  admin {digest(OTHER)}")
    keys = opened(keys=path)
    assert keys.find(SECRET.encode()) == Key("shop", Role.READ)
    assert keys.find(OTHER.encode()) == Key("ops", Role.ADMIN)
    assert keys.find(digest(SECRET).encode()) is None


def test_rcml_key_prints_the_line_for_the_key_file_on_stdout_and_the_key_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["key", "--name", "shop", "--role", "admin"]) == 0
    shown = capsys.readouterr()
    secret = shown.err.split()[-1]
    assert secret not in shown.out
    assert opened(keys=in_file(tmp_path, shown.out.strip())).find(secret.encode()) == Key("shop", Role.ADMIN)


def test_generated_keys_are_unique(capsys: pytest.CaptureFixture[str]) -> None:
    assert [main(["key", "--name", "shop"]) for _ in range(20)] == [0] * 20
    assert len(set(capsys.readouterr().out.split("\n")[:-1])) == 20


@pytest.mark.parametrize("role", ["read", "admin"])
@pytest.mark.parametrize(
    "secret", ["fifteen-letters", "sixteen-letters\u00e9", "two words in a key", "x" * 513]
)
def test_rejects_a_short_or_malformed_key_without_quoting_it(secret: str, role: str) -> None:
    with pytest.raises(InputError) as refused:
        opened(**{f"{role}_keys": ("good-enough-a-key", secret)})
    assert f"Key 2 of RCML_{role.upper()}_KEYS has {len(secret)} characters" in str(refused.value)
    assert "`rcml key` creates" in str(refused.value)
    assert secret not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (SECRET, "Line 2 of {path} does not have the form `name role sha256`"),
        (f"shop write {digest(SECRET)}", "Line 2 of {path} does not have the form `name role sha256`"),
        (f"sh/op read {digest(SECRET)}", "Line 2 of {path} does not have the form `name role sha256`"),
        (f"shop read {SECRET}", "Line 2 of {path} does not end with a SHA-256 digest"),
        (f"first read {digest(SECRET)}", "Two keys are named 'first'."),
        (f"shop admin {digest(OTHER)}", "The keys 'first' and 'shop' are identical."),
    ],
)
def test_rejects_an_invalid_line_without_quoting_it(tmp_path: Path, line: str, said: str) -> None:
    path = in_file(tmp_path, f"first read {digest(OTHER)}", line)
    with pytest.raises(InputError) as refused:
        opened(keys=path)
    assert said.format(path=path) in str(refused.value)
    assert SECRET not in str(refused.value)


def test_rejects_an_unreadable_key_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        opened(keys=tmp_path / "none")
    (tmp_path / "keys").write_bytes(b"\xff")
    with pytest.raises(InputError, match="cannot be read: it is not UTF-8"):
        opened(keys=tmp_path / "keys")


def test_no_representation_of_the_settings_shows_a_key() -> None:
    config = ServeConfig(index=Path("i"), read_keys=(SECRET,), admin_keys=(OTHER,))
    for shown in (repr(config), str(config), config.model_dump_json(), repr(config.model_dump())):
        assert SECRET not in shown
        assert OTHER not in shown


def test_no_validation_error_of_the_settings_shows_a_key() -> None:
    with pytest.raises(ValueError, match="port") as refused:
        ServeConfig(index=Path("i"), read_keys=(SECRET,), admin_keys=5, port=-1)
    assert SECRET not in f"{refused.value!r} {refused.value}"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_a_server_on_loopback_needs_no_key(host: str) -> None:
    assert len(opened(host=host)) == 0


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.2", "::ffff:10.0.0.1", "shop.example"]
)
def test_a_server_on_another_address_needs_a_key_or_the_unguarded_option(host: str) -> None:
    with pytest.raises(InputError) as refused:
        opened(host=host)
    assert all(part in str(refused.value) for part in (host, "--keys", "RCML_READ_KEYS", "--unguarded"))
    assert len(opened(host=host, unguarded=True)) == 0
    assert len(opened(host=host, read_keys=(SECRET,))) == 1


@pytest.mark.parametrize("verb", [["serve", "--index", "none"], ["demo", "--out", "none"]])
def test_an_exposed_server_is_rejected_before_any_work(
    verb: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*verb, "--host", "0.0.0.0"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("Without an API key, every client that can reach 0.0.0.0 could read")
    assert list(tmp_path.iterdir()) == []


@given(st.ip_addresses())
def test_is_loopback_agrees_with_the_ipaddress_module(address: Any) -> None:
    assert is_loopback(str(address)) == address.is_loopback
