"""Registry of the sources: the name on the command line, and how its files are opened."""

from model.data.prepare_config import PrepareConfig

from .source import Source
from .table import table_source


def open_source(config: PrepareConfig) -> Source:
    """Open the files that `config` names.

    Raises:
        InputError: files are missing, or the mapping of columns names something that is no column of rcml.
    """
    items = [config.items] if config.items is not None else []
    log = [config.interactions] if config.interactions is not None else []
    return table_source(items, log, config.columns)
