"""Pictures of items: the first usable one of each item, read from a file or downloaded, and stored scaled."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from model.console import progress, say
from model.errors import PictureError

from .downloads import DownloadLimits, download, reasons
from .picture_cache import Failure, PictureCache
from .picture_cells import host_of, is_address, local_path, other_scheme, pictures_of
from .stored_pictures import scale_picture


@dataclass(frozen=True)
class Fetching:
    """Options of downloads: the folder of downloaded pictures, their limits, and hosts that need not be public."""

    cache: Path
    limits: DownloadLimits = field(default_factory=DownloadLimits)
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Wanted:
    """Address that must be downloaded before an item's picture is known."""

    address: str


@dataclass
class _Resolver:
    """Search for the first usable picture of items; `failed` maps addresses to the reason why they are not usable."""

    pictures: list[list[str]]
    roots: Sequence[Path]
    folder: Path
    side: int
    cache: PictureCache | None
    failed: dict[str, str]

    def first(self, position: int) -> Path | str | _Wanted | None:
        """Return the stored picture of an item, why it has none, None if it names none, or what must be downloaded."""
        refusals = []
        for picture in self.pictures[position]:
            target = self.folder / f"{position:07d}"
            if is_address(picture):
                kept = self.cache.read(picture) if self.cache else None
                if kept is not None:
                    path = target.with_suffix(kept[1])
                    path.write_bytes(kept[0])
                    return path
                if self.cache is not None and picture not in self.failed:
                    return _Wanted(picture)
                refusals.append(self.failed.get(picture) or _not_fetched(self.pictures[position]))
                continue
            if scheme := other_scheme(picture):
                refusals.append(
                    f"the picture is an address with the scheme {scheme}; give an http or https address, or a file"
                )
                continue
            path = local_path(picture, self.roots[position])
            if not os.path.exists(path):
                refusals.append(f"picture {picture} does not exist in the folder {self.roots[position]}")
                continue
            try:
                return target.with_suffix(scale_picture(path, target, self.side))
            except PictureError as error:
                refusals.append(str(error))
        return "; ".join(dict.fromkeys(refusals)) or None


def resolve_pictures(
    cells: Sequence[Sequence[str]],
    roots: Sequence[Path],
    folder: Path,
    side: int,
    fetching: Fetching | None = None,
) -> list[Path | str | None]:
    """Store the first usable picture of each item in `folder`, named after the item's position.

    `cells` has the pictures of each item, best first: paths relative to the item's folder in `roots`, or addresses,
    which are downloaded only with `fetching`. Return for each item the stored file, why no picture is usable, or None
    if the item names none.

    Raises:
        StorageError, InputError: the folder of downloaded pictures cannot be written.
        ArtifactError: another process uses the folder of downloaded pictures.
    """
    with ExitStack() as stack:
        cache = stack.enter_context(PictureCache.open(fetching.cache, side)) if fetching else None
        pictures = [pictures_of(cell, root) for cell, root in zip(cells, roots, strict=True)]
        resolver = _Resolver(pictures, roots, folder, side, cache, {})
        found: list[Path | str | None] = [None] * len(cells)
        failures: list[Failure] = []
        rest: Sequence[int] = range(len(cells))
        pool = stack.enter_context(ThreadPoolExecutor())
        while rest:
            outcomes = list(progress(pool.map(resolver.first, rest), "reading pictures", len(rest)))
            wanted = {}
            for position, outcome in zip(rest, outcomes, strict=True):
                if isinstance(outcome, _Wanted):
                    wanted[position] = outcome.address
                else:
                    found[position] = outcome
            if cache is not None and fetching is not None and wanted:
                new = download(wanted.values(), cache, fetching.limits, fetching.hosts)
                failures += new
                resolver.failed.update({failure.address: _told(failure) for failure in new})
            rest = list(wanted)
        if cache is not None:
            _report(cache, failures)
    return found


def _report(cache: PictureCache, failures: list[Failure]) -> None:
    table = cache.write_failures(failures)
    if failures:
        counts = "; ".join(f"{count:,}: {reason}" for reason, count in reasons(failures).items())
        say(
            f"{len(failures):,} pictures could not be downloaded. {counts}. See {table}; a later run tries them again."
        )


def _not_fetched(pictures: Sequence[str]) -> str:
    """Say that the pictures of an item are not downloaded, with the first address."""
    address = next(filter(is_address, pictures))
    scheme = address.partition(":")[0].lower()
    return f"the picture is an address ({scheme}://{host_of(address)}/...); give --fetch to download it"


def _told(failure: Failure) -> str:
    return f"the picture at {failure.host} was not downloaded: {failure.reason}"
