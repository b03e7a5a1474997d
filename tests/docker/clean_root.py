"""Check of an image without a Docker engine: `python -m tests.docker.clean_root docker/cpu.Dockerfile` (`make images`).

It runs the instructions of the Dockerfile in an empty Debian system with Debian's Python in place of the base image,
starts the command of the image in a container (see `container`), asks the server, and stops it. It needs root on a
Debian or Ubuntu with debootstrap, about three times the disk of the image, and the network while it builds.
"""

import os
import shlex
import shutil
import subprocess
import tempfile
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from .container import Container, Image, check
from .dockerfile import Instruction, Stage, assignments, context_files, read_stages, substituted

ROOT = Path(__file__).parents[2]

RELEASE = "bookworm"
"""Release of Debian that the base image of the Dockerfiles is made of. Its Python is 3.11, too."""

PACKAGES = "ca-certificates,python3,python3-pip,python3-venv"

PASSED = ("PIP_", "SSL_CERT_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Beginnings of the names of this machine's variables that a build needs to reach the package index."""


class Build:
    """Build of a Dockerfile in folders below `place`.

    `arguments` are those of `--build-arg`, and `binds` the files and folders of this machine that commands may read.
    With `built`, the folders are complete already, and only the settings of the image are read.
    """

    def __init__(self, place: Path, arguments: dict[str, str], binds: Sequence[Path], built: bool) -> None:
        self._place = place
        self._arguments = arguments
        self._binds = binds
        self._built = built
        self._stages: dict[str, Image] = {}

    def run(self, stages: Sequence[Stage]) -> Image:
        """Run the instructions of all stages and return the image of the last one."""
        base = self._place / "base"
        if not base.exists():
            options = ["--variant=minbase", f"--include={PACKAGES}", RELEASE]
            subprocess.run(["debootstrap", *options, base], check=True, stdout=subprocess.DEVNULL)
            (base / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        for number, stage in enumerate(stages):
            root = self._place / f"stage-{number}"
            if not self._built:
                shutil.rmtree(root, ignore_errors=True)
                subprocess.run(["cp", "-a", "--reflink=auto", base, root], check=True)
            image = self._stages[stage.name] = Image(root)
            print(
                f"FROM {stage.image.partition('@')[0]}, here Debian {RELEASE}: {_mib(root)} MiB", flush=True
            )
            given: dict[str, str] = {}
            for instruction in stage.instructions:
                if self._built and instruction.name in ("COPY", "RUN"):
                    continue
                before = _mib(root)
                self._step(image, given, instruction)
                if instruction.name in ("COPY", "RUN"):
                    shown = " ".join(instruction.text.split())
                    print(f"{_mib(root) - before:+6d} MiB  {instruction.name} {shown[:100]}", flush=True)
        return image

    def _step(self, image: Image, given: dict[str, str], instruction: Instruction) -> None:
        text = instruction.text
        match instruction.name:
            case "ARG":
                for name, default in assignments(text, given).items():
                    given[name] = self._arguments.get(name, default)
            case "ENV":
                image.env |= assignments(text, given | image.env)
            case "USER":
                image.user = text
            case "VOLUME":
                image.volumes.append(text)
            case "WORKDIR":
                image.folder = text
                image.host_path(".").mkdir(parents=True, exist_ok=True)
            case "COPY":
                *sources, target = substituted(text, given | image.env).split()
                self._copy(image, instruction.flags.get("from"), sources, target)
            case "RUN":
                self._run(image, given | image.env, instruction.command)
            case "CMD" | "ENTRYPOINT" | "HEALTHCHECK":
                image.commands[instruction.name] = instruction.command
            case "EXPOSE":
                pass
            case _:
                raise AssertionError(instruction.name)

    def _copy(self, image: Image, stage: str | None, sources: Sequence[str], target: str) -> None:
        for source in sources:
            to = image.host_path(target) / (Path(source).name if target.endswith("/") else "")
            if stage is not None:
                origin = self._stages[stage].host_path(source)
                to.parent.mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "-a", "--reflink=auto", origin, to], check=True)
                continue
            files = [path for path in context_files(ROOT) if Path(path).is_relative_to(source)]
            if not files:
                raise FileNotFoundError(f"COPY {source}: it does not exist, or .dockerignore leaves it out.")
            for path in files:
                copied = to / Path(path).relative_to(source)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / path, copied)

    def _run(self, image: Image, env: dict[str, str], command: Sequence[str]) -> None:
        made = []
        mounts = ["mount -t proc proc proc", "mount --rbind /dev dev"]
        for path in (Path("/etc/resolv.conf"), Path("/etc/ssl/certs/ca-certificates.crt"), *self._binds):
            target = image.root / str(path.resolve()).lstrip("/")
            if not target.exists():
                made.append(target)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.mkdir() if path.is_dir() else target.touch()
            mounts.append(f"mount --bind -o ro '{path.resolve()}' '{target}'")
        passed = {name: value for name, value in os.environ.items() if name.upper().startswith(PASSED)}
        inside = [
            "env",
            "-i",
            "-C",
            image.folder,
            *(f"{key}={value}" for key, value in (passed | env).items()),
        ]
        script = " && ".join([*mounts, 'exec chroot . "$@"'])
        outside = ["unshare", "--mount", "sh", "-c", script, "sh"]
        subprocess.run([*outside, *inside, *command], cwd=image.root, check=True, stdout=subprocess.DEVNULL)
        for target in made:
            target.rmdir() if target.is_dir() else target.unlink()


def _mib(folder: Path) -> int:
    counted = subprocess.run(["du", "-xsm", folder], check=True, stdout=subprocess.PIPE, text=True)
    return int(counted.stdout.split()[0])


def main() -> None:
    """Build the image of a Dockerfile, run it, and print sizes and findings; ends with an error if anything fails."""
    parser = ArgumentParser(description=main.__doc__)
    parser.add_argument("dockerfile", type=Path)
    parser.add_argument(
        "--build-arg", action="append", default=[], metavar="NAME=VALUE", help="as for docker build"
    )
    parser.add_argument(
        "--bind", action="append", default=[], type=Path, metavar="PATH", help="path that RUN may read"
    )
    parser.add_argument(
        "--place", type=Path, help="folder for the roots, which are kept (default: a temporary one)"
    )
    parser.add_argument("--built", action="store_true", help="run what --place has from an earlier call")
    parser.add_argument(
        "--options", default="", type=shlex.split, help="more options for the command of the image"
    )
    given = parser.parse_args()
    arguments = dict(one.split("=", 1) for one in given.build_arg if one.partition("=")[2])
    with tempfile.TemporaryDirectory(prefix="rcml-image-") as temporary:
        place = (given.place or Path(temporary)).resolve()
        place.mkdir(parents=True, exist_ok=True)
        image = Build(place, arguments, given.bind, given.built).run(
            read_stages(given.dockerfile.read_text("utf-8"))
        )
        print(f"{_mib(image.root) - _mib(place / 'base'):6d} MiB  on top of the base image", flush=True)
        data = place / "data"
        if not given.built:
            shutil.rmtree(data, ignore_errors=True)
        with Container(image, data, given.options) as container:
            check(container)
    print(f"{given.dockerfile} was built, served on a read-only root and stopped.")


if __name__ == "__main__":
    main()
