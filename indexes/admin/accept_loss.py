"""Command `rcml index accept-loss`: continue without acknowledged changes that the journal has lost.

An index whose journal lacks acknowledged changes does not open, so that nobody overlooks the loss. This command is the
deliberate way on if there is no backup. Damaged files are kept under another name, and the journal gets an entry for
every lost change, so that its number is never given to another change and `rcml index stats` shows the loss.
"""

from indexes.config import AcceptLossConfig
from indexes.journal.high_water_mark import HighWaterMark
from indexes.journal.journal import Journal
from indexes.journal.store import Store
from indexes.storage.generation import Generation
from indexes.storage.layout import journal_store, lineage, lock_index, marked_sequence, newest_generation
from model.console import say
from model.errors import ArtifactError, LostChangesError


def accept_loss(config: AcceptLossConfig) -> str:
    """Make an index open again without its lost changes, and return a one-line summary.

    Raises:
        ArtifactError: the newest generation is missing or damaged, or another process is writing a generation.
        StorageError: the disk is full or failing, or the server is unreachable.
    """
    with lock_index(config.index):
        generation = Generation.open(newest_generation(config.index))
        try:
            return _accept_loss(generation)
        finally:
            generation.close()


def _accept_loss(generation: Generation) -> str:
    index = generation.path.parent
    checked = generation.journal()
    try:
        checked.since(generation.sequence)
    except LostChangesError as error:
        say(str(error))
    except ArtifactError as error:
        say(f"{error} The damaged journal is kept under another name.")
        journal_store(index, generation.config).set_aside()
    else:
        return f"{index} lacks no acknowledged change. Nothing was changed."
    finally:
        checked.close()
    before, last = _continued(journal_store(index, generation.config), generation)
    numbers = f"changes {before + 1} to {last}" if last > before else "an unknown number of changes"
    return f"Accepted the loss of {numbers} of {index}. Restart the servers that have it open."


def _continued(store: Store, generation: Generation) -> tuple[int, int]:
    """Make the journal in `store` valid, and return its last change and the last change that is lost."""
    index = generation.path.parent
    store.prepare()
    journal = Journal(store, lineage(generation.manifest.parents), generation.sequence, generation.shape)
    try:
        try:
            journal.since(generation.sequence)
        except ArtifactError as error:
            say(f"{error} The damaged journal is kept under another name.")
            journal.close()
            store.set_aside()
        before = max(journal.last(), generation.sequence)
        last = max(before, marked_sequence(index, journal.lineage))
        journal.fill(last)
        HighWaterMark(index).replace(journal.lineage, last, journal.digest(last))
    finally:
        journal.close()
    return before, last
