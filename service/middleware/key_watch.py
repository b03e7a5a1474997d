"""Watch over the key file: keys can be added and revoked without a restart.

The file is read every second, because its content is all that matters: it may be rewritten in place, replaced by a
rename, or reached through a link that is switched, as Kubernetes does with secrets. A new content counts once it was
read twice in a row, so that a file that is still being written is not used. If the new content is not valid, or the
file is gone, the keys in use stay valid, and a log line and a metric say so.
"""

import asyncio
from collections.abc import Callable

from model.errors import InputError
from service.settings import ServeConfig
from service.telemetry.logs import logger

from .api_keys import Keys

READ_INTERVAL_S = 1.0
"""Time between two reads of the key file in seconds. A revoked key is rejected after at most two of them."""


class KeyWatch:
    """Reader of the key file of a server."""

    def __init__(self, keys: Keys, config: ServeConfig, report: Callable[[bool], None]) -> None:
        """Watch the file of `config` for `keys`. `report` is told whether the latest content could be used.

        A pipe, as of `--keys <(decrypt keys)`, can be read only once and is not watched.
        """
        self._keys = keys
        self._config = config
        self._file = config.keys if config.keys is not None and config.keys.is_file() else None
        self._report = report
        # The file may have changed since `keys` were read, so the content in use is theirs.
        self._used, self._read = keys.content, self._content()

    async def run(self) -> None:
        """Read the file until cancelled; without a key file, return at once."""
        while self._file is not None:
            await asyncio.sleep(READ_INTERVAL_S)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Read the file once, and use its keys if they are new and complete."""
        before, self._read = self._read, self._content()
        if self._read != before or self._read == self._used:
            return
        self._used = self._read
        try:
            if self._read is None:
                raise InputError(f"The key file {self._file} is missing or cannot be read.")
            keys = Keys.open(self._config)
            if self._keys and not keys:
                raise InputError(
                    f"The key file {self._config.keys} has no keys. A server cannot give up access control."
                )
        except InputError as error:
            logger.warning("%s The keys that were read before remain valid.", error)
            self._report(False)
            return
        self._keys.replace(keys)
        logger.warning("Read %d API keys again, because %s has changed.", len(keys), self._config.keys)
        self._report(True)

    def _content(self) -> bytes | None:
        """Return the content of the file, or None if it cannot be read."""
        try:
            # Opening a pipe that took the place of the file would wait for its writer.
            return self._file.read_bytes() if self._file is not None and self._file.is_file() else None
        except OSError:
            return None
