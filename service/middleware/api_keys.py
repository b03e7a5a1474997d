"""API keys: how they are configured, how they are looked up, and when a server may run without keys.

    RCML_READ_KEYS, RCML_ADMIN_KEYS   environment variables with the keys themselves
    --keys FILE                       lines of `rcml key`: `name role sha256 [shops]`; no key is stored on disk

The server keeps only the SHA-256 digest of a key and looks keys up by digest. The look-up needs no constant-time
comparison: its timing depends only on the digest of the key that was sent, and an attacker cannot find a key with a
chosen SHA-256 digest. The digest needs no salt or slow hash either, because keys are random and cannot be found in a
dictionary.
"""

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

from model.console import say
from model.errors import InputError
from service.http.limits import SHOP_NAME
from service.http.route_rules import Role
from service.settings import KeyConfig, ServeConfig

MIN_KEY_CHARACTERS, MAX_KEY_CHARACTERS = 16, 512

# Printable ASCII except the comma, which separates keys.
_KEY = re.compile(rf"[!-+\--~]{{{MIN_KEY_CHARACTERS},{MAX_KEY_CHARACTERS}}}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ROLES = {"read": Role.READ, "admin": Role.ADMIN}


@dataclass(frozen=True)
class Key:
    """API key as stored by the server: its name in logs and metrics, its role, and the shops that it is for."""

    name: str
    access: Role
    shops: frozenset[str] = frozenset()
    """Names of the shops (`--shops`) that accept the key; all shops if empty."""

    def reaches(self, access: Role) -> bool:
        """Return whether the key is sufficient for a route that requires `access`."""
        return self.access is Role.ADMIN or access is not Role.ADMIN


class Keys:
    """API keys of a server by SHA-256 digest; falsy if the server has no keys."""

    def __init__(self, by_digest: Mapping[bytes, Key], content: bytes | None = None) -> None:
        """Create the keys; `content` is that of the key file from which they were read."""
        self._by_digest = by_digest
        self.content = content

    def __len__(self) -> int:
        return len(self._by_digest)

    def replace(self, keys: "Keys") -> None:
        """Accept `keys` from now on, and no others."""
        self._by_digest, self.content = keys._by_digest, keys.content

    def find(self, secret: bytes, shop: str = "") -> Key | None:
        """Return the key with this secret, or None if the secret is unknown or the key is not for `shop`."""
        key = self._by_digest.get(sha256(secret).digest())
        return key if key is None or not key.shops or shop in key.shops else None

    @classmethod
    def open(cls, config: ServeConfig) -> "Keys":
        """Return the keys from the environment variables and from the key file.

        Raises:
            InputError: A key, a line or the file is invalid, or the server requires keys and has none.
        """
        found: dict[bytes, Key] = {}
        content = None if config.keys is None else _content(config.keys)
        for digest, key in (*_from_settings(config), *_from_file(config.keys, content)):
            if digest in found:
                raise InputError(
                    f"The keys '{found[digest].name}' and '{key.name}' are identical. List each key only once."
                )
            if key.name in {known.name for known in found.values()}:
                raise InputError(f"Two keys are named '{key.name}'. Rename one in {config.keys}.")
            found[digest] = key
        if not found and not config.unguarded and not is_loopback(config.host):
            raise InputError(
                f"Without an API key, every client that can reach {config.host} could read and change everything. "
                "Create keys with `rcml key` and pass them with --keys FILE (or set RCML_READ_KEYS and "
                "RCML_ADMIN_KEYS). If something else protects this server, pass --unguarded instead."
            )
        return cls(found, content)


def make_key(config: KeyConfig) -> str:
    """Print a new random key on stderr and return its line for the key file (`--keys`).

    Raises:
        InputError: The name is invalid.
    """
    if not _NAME.fullmatch(config.name):
        raise InputError(f"{config.name!r} is not a valid key name. {_NAME_REMEDY}")
    if (wrong := next((shop for shop in config.shops if not SHOP_NAME.fullmatch(shop)), None)) is not None:
        raise InputError(f"{wrong!r} cannot be the name of a shop. Name the folders of their indexes.")
    secret = f"rcml_{secrets.token_urlsafe(32)}"
    say(f"The API key, which is shown only once: {secret}")
    line = f"{config.name} {config.role} {sha256(secret.encode()).hexdigest()}"
    return f"{line} {','.join(config.shops)}" if config.shops else line


def is_loopback(host: str) -> bool:
    """Return whether a server that listens on `host` can be reached only from this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


_NAME_REMEDY = "Use a name of 1 to 64 letters, digits, dots, hyphens or underscores."


def _from_settings(config: ServeConfig) -> Iterable[tuple[bytes, Key]]:
    for role, given in (("read", config.read_keys), ("admin", config.admin_keys)):
        for number, hidden in enumerate(given, start=1):
            secret = hidden.get_secret_value()
            if not _KEY.fullmatch(secret):
                raise InputError(
                    f"Key {number} of RCML_{role.upper()}_KEYS has {len(secret)} characters and is not valid. Use "
                    f"{MIN_KEY_CHARACTERS} to {MAX_KEY_CHARACTERS} random printable ASCII characters without spaces; "
                    "`rcml key` creates such a key."
                )
            yield sha256(secret.encode()).digest(), Key(f"{role}-{number}", _ROLES[role])


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, str(error.strerror)) from None


def _unreadable(path: Path, reason: str) -> InputError:
    return InputError(
        f"The key file {path} cannot be read: {reason}. Create it from the output of `rcml key`."
    )


def _from_file(path: Path | None, content: bytes | None) -> Iterable[tuple[bytes, Key]]:
    if path is None or content is None:
        return
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise _unreadable(path, "it is not UTF-8") from None
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        # The message does not quote the line, because it may be a key that was pasted by mistake.
        shops = words[3].split(",") if len(words) == 4 else []
        if (
            len(words) not in (3, 4)
            or not _NAME.fullmatch(words[0])
            or words[1] not in _ROLES
            or not all(map(SHOP_NAME.fullmatch, shops))
        ):
            raise InputError(
                f"Line {number} of {path} does not have the form `name role sha256` or `name role sha256 shop,shop`, "
                f"in which the role is read or admin. {_NAME_REMEDY} `rcml key` prints valid lines."
            )
        if not _DIGEST.fullmatch(words[2]):
            raise InputError(
                f"Line {number} of {path} does not end with a SHA-256 digest of 64 lower-case hexadecimal "
                "digits. Do not put the key itself in the file; use the line that `rcml key` prints."
            )
        yield bytes.fromhex(words[2]), Key(words[0], _ROLES[words[1]], frozenset(shops))
