"""Verdict on prepared data: whether training is worth its time, and which option to change if it is not.

The limits are rules of thumb: below them, what the data can show is smaller than its noise. They only lead to notes,
and never stop a run.
"""

from collections.abc import Callable, Iterator

from model.data.prepare_config import PrepareConfig

from .preparation_report import Note, PreparationReport, PreparationVerdict

MIN_TRAIN_PAIRS = 500
"""Minimum number of pairs for training: fewer are learnt by heart."""

MIN_RELATION_PAIRS = 100
"""Minimum number of pairs for training under one relation."""

MIN_VALIDATION_PAIRS = 50
"""Minimum number of pairs with a validation item. With 50, one query is 2 % of the figure that stops the training."""

MIN_TEST_PAIRS = 100
"""Minimum number of pairs with a test item: a 95 % interval of a share is then at most 0.2 wide."""

MIN_RELATION_USERS = 20
"""Minimum number of users whose interactions a relation is derived from."""

MAX_TEXT_ONLY = 0.3
"""Maximum share of items without a picture."""

MAX_SKIPPED = 0.1
"""Maximum share of skipped items, or of rows of a file set aside."""

MIN_JOINED = 0.5
"""Minimum share of the interactions that name a known item."""

MIN_KEPT = 0.2
"""Minimum share of the interactions that the filters by number of users and items keep."""

MIN_PAIRED = 0.3
"""Minimum share of the training items that have a pair."""

MAX_SHARED = 0.5
"""Maximum share of the pairs that belong to several relations."""

MAX_NAMED = 5
"""Maximum number of relations named in a note."""


def judge(report: PreparationReport, config: PrepareConfig) -> PreparationVerdict:
    """Return the verdict on `report`; the notes name the options of `config` with their values."""
    rules: tuple[Callable[[PreparationReport, PrepareConfig], Iterator[Note]], ...] = (
        _join, _filters, _training_pairs, _relations, _pictures, _paired_items, _shared_pairs, _held_out, _skipped,
    )  # fmt: skip
    notes = sorted(
        (note for rule in rules for note in rule(report, config)), key=lambda note: not note.serious
    )
    pairs = [row.pairs.train for row in report.relations]
    relations = f"{len(pairs)} relation{'' if len(pairs) == 1 else 's'}"
    if report.items.text_only == report.items.kept:
        training = "not yet"
        sentence = f"Nothing can be trained yet, because no item has a picture. There are {_pairs(sum(pairs))} under "
        sentence += f"{relations}."
    elif notes and notes[0].serious:
        training = "not yet"
        sentence = f"Training is not worth its time yet: it has {_pairs(sum(pairs))} under {relations}."
    elif notes:
        training = "doubtful"
        points = "one point" if len(notes) == 1 else f"{len(notes)} points"
        sentence = f"Training can be worth its time, after a look at {points}. "
        sentence += f"It has {_pairs(sum(pairs))} under {relations}."
    else:
        training = "worth"
        sentence = (
            f"Training is worth its time: it has {sum(pairs):,} pairs under {relations}, and at least {min(pairs):,} "
            "under each."
        )
    return PreparationVerdict.model_validate({"training": training, "sentence": sentence, "notes": notes})


def _join(report: PreparationReport, config: PrepareConfig) -> Iterator[Note]:
    """Note a log that names other items."""
    unknown, joined = report.log.get("of_unknown_items", 0), report.log.get("without_repeats", 0)
    if unknown and joined < MIN_JOINED * (unknown + joined):
        yield Note(
            text=f"{unknown:,} interactions name no kept item, and only {joined:,} do.",
            remedy="Give the items that the log names, with the same IDs. --repair-ids joins IDs that differ only in "
            "blanks, case, leading zeros or a final .0.",
            serious=joined < 0.1 * (unknown + joined),
        )


def _filters(report: PreparationReport, config: PrepareConfig) -> Iterator[Note]:
    """Note filters that keep few interactions."""
    before, kept = report.log.get("of_latest_items", 0), report.log.get("kept_interactions", 0)
    if kept < MIN_KEPT * before:
        users, items = max(2, config.min_user_items // 2), max(1, config.min_item_users // 2)
        yield Note(
            text=f"The filters keep {kept:,} of {before:,} interactions ({_percent(kept, before)}).",
            remedy=f"Try --min-user-items {users} --min-item-users {items}, or give a longer log.",
        )


def _training_pairs(report: PreparationReport, config: PrepareConfig) -> Iterator[Note]:
    """Note too few pairs for training in all."""
    pairs = sum(row.pairs.train for row in report.relations)
    if pairs < MIN_TRAIN_PAIRS:
        yield Note(
            text=f"There {'is' if pairs == 1 else 'are'} only {_pairs(pairs)} for training; fewer than "
            f"{MIN_TRAIN_PAIRS} are learnt by heart.",
            remedy=_more_pairs(report, config),
            serious=True,
        )


def _relations(report: PreparationReport, config: PrepareConfig) -> Iterator[Note]:
    """Note relations with few pairs or users, and a single relation."""
    few = [row for row in report.relations if row.pairs.train < MIN_RELATION_PAIRS]
    small = [row for row in report.relations if row.users is not None and row.users < MIN_RELATION_USERS]
    clusters = max(2, len(report.relations) - len({row.relation for row in (*few, *small)}))
    if len(report.relations) == 1:
        yield Note(
            text="There is only one relation, so the network cannot learn what differs between relations.",
            remedy=(
                "Give the items more categories, from which the groups of users are found."
                if report.filters
                else "Give edges of several relations."
            ),
        )
    if few:
        named = _named([f"{row.relation} ({row.pairs.train:,})" for row in few])
        yield Note(
            text=f"Too few pairs for training (below {MIN_RELATION_PAIRS}) to learn {len(few)} of "
            f"{len(report.relations)} relations: {named}.",
            remedy=_more_pairs(report, config, clusters=clusters),
            serious=len(few) == len(report.relations),
        )
    if small:
        named = _named([f"{row.relation} ({row.users:,})" for row in small])
        yield Note(
            text=f"Fewer than {MIN_RELATION_USERS} users stand behind {len(small)} of {len(report.relations)} "
            f"relations: {named}.",
            remedy=(
                f"Try --clusters {clusters}, or give a longer log."
                if clusters < len(report.relations)
                else "Give a longer log."
            ),
        )


def _pictures(report: PreparationReport, config: PrepareConfig) -> Iterator[Note]:
    """Note a large share of items without a picture."""
    items = report.items
    if MAX_TEXT_ONLY * items.kept < items.text_only < items.kept:
        yield Note(
            text=f"{items.text_only:,} of {items.kept:,} items ({_percent(items.text_only, items.kept)}) have no "
            "picture: they are indexed, but not trained on.",
            remedy="Give their pictures in the column image, or the folder of the pictures with --images.",
        )


def _paired_items(report: PreparationReport, config: PrepareConfig) -> Iterator[Note]:
    """Note a small share of training items with a pair."""
    paired, items = report.trained_items, report.items.train
    if 0 < paired < MIN_PAIRED * items:
        yield Note(
            text=f"Only {paired:,} of {items:,} training items ({_percent(paired, items)}) have a pair. The network "
            "learns the others from their own text and picture alone.",
            remedy=_more_pairs(report, config),
        )


def _shared_pairs(report: PreparationReport, config: PrepareConfig) -> Iterator[Note]:
    """Note relations that relate the same items."""
    shared = report.pairs - report.pairs_of_one_relation
    if report.pairs and shared > MAX_SHARED * report.pairs:
        yield Note(
            text=f"{_percent(shared, report.pairs)} of the pairs belong to several relations, which therefore differ "
            "little.",
            remedy=(
                f"Try --clusters {max(2, len(report.relations) // 2)}, or a higher --min-npmi than {config.min_npmi:g}."
                if report.filters
                else "Give edges that tell the relations apart."
            ),
        )


def _held_out(report: PreparationReport, config: PrepareConfig) -> Iterator[Note]:
    """Note few pairs with a validation or a test item."""
    validation = sum(row.pairs.validation for row in report.relations) + report.pairs_across.validation
    test = sum(row.pairs.test for row in report.relations) + report.pairs_across.test
    for pairs, least, share, option, effect in (
        (validation, MIN_VALIDATION_PAIRS, config.validation_share, "--validation-share", "early stopping"),
        (test, MIN_TEST_PAIRS, config.test_share, "--test-share", "rcml evaluate"),
    ):
        if pairs < least:
            kind = option.removeprefix("--").removesuffix("-share")
            larger = min(0.3, max(0.1, round(2 * share, 2)))
            remedy = (
                f"Try {option} {larger:g} (now {share:g})." if larger > share else _more_pairs(report, config)
            )
            yield Note(
                text=f"Only {_pairs(pairs)} with a {kind} item; {effect} needs about {least} to be more than chance.",
                remedy=remedy,
            )


def _skipped(report: PreparationReport, config: PrepareConfig) -> Iterator[Note]:
    """Note many skipped items, and files with many rows set aside."""
    skipped = len(report.set_aside)
    items = report.items.kept + skipped
    if skipped > MAX_SKIPPED * items:
        yield Note(
            text=f"{skipped:,} of {items:,} items were skipped ({_percent(skipped, items)}).",
            remedy="The reasons are listed under Skipped items.",
        )
    for file in report.files:
        lost = file.rows - file.kept
        if lost > MAX_SKIPPED * file.rows:
            yield Note(
                text=f"{lost:,} of {file.rows:,} rows of {file.file} were set aside ({_percent(lost, file.rows)}).",
                remedy="The reasons are listed under Files.",
            )


def _more_pairs(report: PreparationReport, config: PrepareConfig, clusters: int | None = None) -> str:
    """Say how to get more pairs, or more of them in each of fewer `clusters`."""
    if not report.filters:
        return "Give more edges."
    options = []
    if clusters is not None and clusters < len(report.relations):
        options.append(f"--clusters {clusters}")
    if config.min_support > 2:
        options.append(f"--min-support {config.min_support - 1} (now {config.min_support})")
    else:
        options.append(f"--partners {2 * config.partners} (now {config.partners})")
    return f"Try {' or '.join(options)}, or give a longer log."


def _named(names: list[str]) -> str:
    """Enumerate names, the first `MAX_NAMED` of them."""
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _pairs(count: int) -> str:
    return "1 pair" if count == 1 else f"{count:,} pairs"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.0f} %"
