"""Registry of the sources: the name on the command line, and how its files are opened."""

from collections.abc import Iterable, Mapping

from model.data.prepare_config import PrepareConfig, SourceName
from model.errors import InputError

from .amazon_2014 import Amazon2014
from .amazon_2018 import Amazon2018
from .amazon_2023 import Amazon2023
from .goodreads import Goodreads
from .hm import HM
from .movielens import MovieLens
from .recbole import RecBole
from .shopify import Shopify
from .source import ITEM_NAMES, LOG_NAMES, Source, files_of
from .table import TableSource, table_source
from .usual_names import LOG_PREFIX
from .woocommerce import WooCommerce

SOURCES: Mapping[SourceName, type[Source]] = {
    "table": TableSource,
    "amazon-2014": Amazon2014,
    "amazon-2018": Amazon2018,
    "amazon-2023": Amazon2023,
    "goodreads": Goodreads,
    "hm": HM,
    "movielens": MovieLens,
    "recbole": RecBole,
    "shopify": Shopify,
    "woocommerce": WooCommerce,
}


def open_source(config: PrepareConfig) -> Source:
    """Open the files that `config` names, or find them in its folder. The log is not looked for if there are edges.

    Raises:
        InputError: files are missing, or the mapping of columns names something that is no column of rcml.
    """
    _refuse_unknown_names(config.columns)
    if config.source == "table":
        return table_source(list(config.items), list(config.interactions), config.columns)
    if config.columns and config.source != "recbole":
        raise InputError(
            f"--columns has no effect with --source {config.source}, whose columns are known. Leave it out, or use "
            "--source table."
        )
    source = SOURCES[config.source]()
    if isinstance(source, RecBole):
        source.columns = config.columns
    source.item_files = files_of(config.items)
    source.log_files = files_of(config.interactions)
    source.folder = config.folder or source.item_files[0].parent
    source.pictures = config.images or source.folder
    if not source.item_files:
        source.find_items()
    if not source.log_files and config.edges is None:
        source.find_log()
    return source


def _refuse_unknown_names(columns: Iterable[str]) -> None:
    """Refuse a mapping of something that is no column of rcml."""
    own = [*ITEM_NAMES[:-1], "image", *LOG_NAMES[:1], *LOG_NAMES[2:]]
    known = {*own, "images", *(f"{LOG_PREFIX}{name}" for name in LOG_NAMES)}
    for name in columns:
        if name not in known:
            raise InputError(
                f"--columns maps {name!r}, which is no column of rcml. Its columns are {', '.join(own)}; "
                f"{LOG_PREFIX}item_id is that of the log, if the items have another."
            )
