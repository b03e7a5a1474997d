"""API keys: where they come from, how one is recognised, and when a server may do without them.

    RCML_READ_KEYS, RCML_ADMIN_KEYS   the keys themselves, from the environment
    --keys FILE                       lines `name role sha256`, made by `rcml key`, so that no key lies on the disk

Of a key only its SHA-256 is kept. It is looked up by that digest, which needs no comparison in constant time: to
learn from timing how far a guess agrees, one would have to steer the guess's digest, and that is what SHA-256
forbids. Nor does a digest need salt or a slow hash: keys are random, not passwords that a dictionary holds.
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
from service.http.route_rules import Role
from service.settings import KeyConfig, ServeConfig

MIN_KEY_CHARACTERS, MAX_KEY_CHARACTERS = 16, 512

# Printable ASCII but the comma, which separates keys.
_KEY = re.compile(rf"[!-+\--~]{{{MIN_KEY_CHARACTERS},{MAX_KEY_CHARACTERS}}}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ROLES = {"read": Role.READ, "admin": Role.ADMIN}


@dataclass(frozen=True)
class Key:
    """What is known of a key: the name that logs and metrics show, and how far it reaches."""

    name: str
    access: Role

    def reaches(self, access: Role) -> bool:
        """Tell whether the key is enough for a route."""
        return self.access is Role.ADMIN or access is not Role.ADMIN


class Keys:
    """The keys of a server, by the SHA-256 of each; falsy if there are none."""

    def __init__(self, by_digest: Mapping[bytes, Key]) -> None:
        self._by_digest = by_digest

    def __len__(self) -> int:
        return len(self._by_digest)

    def find(self, secret: bytes) -> Key | None:
        """Return the key whose secret was sent, if there is one."""
        return self._by_digest.get(sha256(secret).digest())

    @classmethod
    def open(cls, config: ServeConfig) -> "Keys":
        """Read all keys that `config` names.

        Raises:
            InputError: a key, a line or the file cannot be used, or there is no key though one is needed.
        """
        found: dict[bytes, Key] = {}
        for digest, key in (*_from_settings(config), *_from_file(config.keys)):
            if digest in found:
                raise InputError(
                    f"The keys {found[digest].name} and {key.name} are one and the same. Give every key once."
                )
            if key.name in {known.name for known in found.values()}:
                raise InputError(f"Two keys are named {key.name}. Rename one in {config.keys}.")
            found[digest] = key
        if not found and not config.unguarded and not is_loopback(config.host):
            raise InputError(
                f"Without an API key, whoever reaches {config.host} could ask and change everything. Make keys with "
                "`rcml key` and give them with --keys FILE (or RCML_READ_KEYS and RCML_ADMIN_KEYS), or say "
                "--unguarded where something else guards this server."
            )
        return cls(found)


def make_key(config: KeyConfig) -> str:
    """Show a new random key on stderr, once; returns its line for the file of `--keys`.

    Raises:
        InputError: the name cannot be used.
    """
    if not _NAME.fullmatch(config.name):
        raise InputError(f"A key cannot be named {config.name!r}. {_NAME_REMEDY}")
    secret = f"rcml_{secrets.token_urlsafe(32)}"
    say(f"The key, shown this once: {secret}")
    return f"{config.name} {config.role} {sha256(secret.encode()).hexdigest()}"


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


_NAME_REMEDY = "Use 1 to 64 letters, digits, dots, hyphens and underscores."


def _from_settings(config: ServeConfig) -> Iterable[tuple[bytes, Key]]:
    for role, given in (("read", config.read_keys), ("admin", config.admin_keys)):
        for number, hidden in enumerate(given, start=1):
            secret = hidden.get_secret_value()
            if not _KEY.fullmatch(secret):
                raise InputError(
                    f"Key {number} of RCML_{role.upper()}_KEYS has {len(secret)} characters, or some that are not "
                    f"printable ASCII. Give {MIN_KEY_CHARACTERS} to {MAX_KEY_CHARACTERS}, chosen at random: "
                    "`rcml key` makes such a key."
                )
            yield sha256(secret.encode()).digest(), Key(f"{role}-{number}", _ROLES[role])


def _from_file(path: Path | None) -> Iterable[tuple[bytes, Key]]:
    if path is None:
        return
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(
            f"The keys in {path} cannot be read: {reason}. Make the file with `rcml key`."
        ) from None
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        # What is wrong with a line is not shown: it may be a key that was pasted by mistake.
        if len(words) != 3 or not _NAME.fullmatch(words[0]) or words[1] not in _ROLES:
            raise InputError(
                f"Line {number} of {path} is not `name role sha256`, role being read or admin. {_NAME_REMEDY} "
                "`rcml key` prints such lines."
            )
        if not _DIGEST.fullmatch(words[2]):
            raise InputError(
                f"Line {number} of {path} does not end in a SHA-256 of 64 hexadecimal digits. "
                "Never write the key itself there: `rcml key` prints the line to write."
            )
        yield bytes.fromhex(words[2]), Key(words[0], _ROLES[words[1]])
