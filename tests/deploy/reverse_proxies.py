"""nginx and Caddy with the configurations of deploy/, in front of a server of the same host."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from .programs import DEPLOY, listening, program, run

NGINX = DEPLOY / "nginx" / "rcml.conf"
CADDY = DEPLOY / "caddy" / "Caddyfile"

SHOWN = "127.0.0.1:8000"
"""Address of rcml in the configurations."""

_NGINX_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def nginx_configuration(folder: Path, port: int, server: int) -> Path:
    """Write the configuration of nginx for these two ports, with all files in `folder`, and return its path."""
    site = folder / "rcml.conf"
    shown = NGINX.read_text("utf-8")
    assert shown.count(SHOWN) == shown.count("listen 80;") == 1
    site.write_text(
        shown.replace(SHOWN, f"127.0.0.1:{server}").replace("listen 80;", f"listen 127.0.0.1:{port};")
    )
    temporary = "".join(f"{name}_temp_path {folder / name};" for name in _NGINX_TEMPORARY)
    main = folder / "nginx.conf"
    main.write_text(
        f"daemon off; master_process off; pid {folder / 'pid'}; error_log stderr;\n"
        f"events {{}}\nhttp {{ access_log off; {temporary} include {site}; }}\n"
    )
    return main


def caddy_configuration(folder: Path, port: int, server: int) -> Path:
    """Write the configuration of Caddy for these two ports, without TLS, and return its path."""
    shown = CADDY.read_text("utf-8")
    assert shown.count(SHOWN) == shown.count("\nshop.example {") == 1
    main = folder / "Caddyfile"
    main.write_text(
        "{\n\tadmin off\n\tdefault_bind 127.0.0.1\n}\n"
        + shown.replace(SHOWN, f"127.0.0.1:{server}").replace(
            "\nshop.example {", f"\nhttp://127.0.0.1:{port} {{"
        )
    )
    return main


def homed(folder: Path) -> dict[str, str]:
    """Return an environment in which Caddy keeps its files in `folder`."""
    return {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}


@contextmanager
def nginx(folder: Path, port: int, server: int) -> Iterator[None]:
    """Run nginx on `port` in front of rcml on the port `server`."""
    words = [program("nginx"), "-p", str(folder), "-c", str(nginx_configuration(folder, port, server))]
    with listening(words, port, folder / "log"):
        yield


@contextmanager
def caddy(folder: Path, port: int, server: int) -> Iterator[None]:
    """Run Caddy on `port` in front of rcml on the port `server`."""
    main = str(caddy_configuration(folder, port, server))
    words = [program("caddy"), "run", "--adapter", "caddyfile", "--config", main]
    with listening(words, port, folder / "log", homed(folder)):
        yield


def check_nginx(folder: Path) -> str:
    """Let nginx check its configuration, and return what it prints."""
    return run("nginx", "-t", "-p", folder, "-c", nginx_configuration(folder, 80, 8000))


def check_caddy(folder: Path) -> str:
    """Let Caddy check its configuration as it is, and return what it prints."""
    return run("caddy", "validate", "--adapter", "caddyfile", "--config", CADDY, environment=homed(folder))


PROXIES: dict[str, Callable[[Path, int, int], AbstractContextManager[None]]] = {
    "nginx": nginx,
    "caddy": caddy,
}
