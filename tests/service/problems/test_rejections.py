"""Each of our errors has one kind of problem, and the remedy that an HTTP client has."""

from collections.abc import Iterator

import pytest

from model.errors import (
    ArtifactError,
    ForbiddenUrlError,
    InputError,
    MismatchError,
    NoTokensError,
    NoWordsError,
    RcmlError,
    StorageError,
    TrainingError,
    UnknownAttributeError,
    UnknownItemError,
    UnknownRelationError,
    UnreachableError,
)
from service.problems.errors import BusyError, OverloadedError, ServiceError, TooManyJobsError
from service.problems.kinds import PICTURE_NOT_FETCHED
from service.problems.rejections import MODEL_ERROR_KINDS, detail_of, rejection_of


def below(error: type[RcmlError]) -> Iterator[type[RcmlError]]:
    for cls in error.__subclasses__():
        yield cls
        yield from below(cls)


@pytest.mark.parametrize("error", [*below(ServiceError)])
def test_every_error_of_the_service_carries_its_kind(error: type[ServiceError]) -> None:
    assert error.kind.name


@pytest.mark.parametrize(
    "error", [InputError("x"), ArtifactError("x"), MismatchError("x"), TrainingError("x"), RcmlError("x")]
)
def test_an_error_that_no_client_can_cause_is_no_rejection(error: RcmlError) -> None:
    assert rejection_of(error) is None


def test_an_error_is_of_the_kind_of_its_nearest_parent() -> None:
    rejection = rejection_of(ForbiddenUrlError("https://a is not asked."))
    assert rejection is not None
    (parent,) = ForbiddenUrlError.__bases__
    assert issubclass(parent, RcmlError)
    assert rejection.kind == MODEL_ERROR_KINDS[parent] == PICTURE_NOT_FETCHED
    assert rejection.detail == "https://a is not asked."


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(OverloadedError(2.1), "3"), (TooManyJobsError(8), "5"), (BusyError("x"), "5")],
)
def test_a_service_error_says_when_to_ask_again(error: ServiceError, seconds: str) -> None:
    rejection = rejection_of(error)
    assert rejection is not None
    assert rejection.headers == {"Retry-After": seconds}


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (UnknownItemError("x"), "No item has the id 'x'. GET /items lists the ids there are."),
        (
            NoTokensError(),
            "This index keeps no tokens, so it cannot be asked about a relation in words. Name one of GET /relations, "
            "or build the index with --token-store.",
        ),
        (
            NoWordsError("x", ["title", "categories"]),
            "Item 'x' has no words in title, categories, which is what the network reads of an item. Send some.",
        ),
    ],
)
def test_a_remedy_names_the_route_that_helps(error: RcmlError, detail: str) -> None:
    assert detail_of(error) == detail
    assert "GET /" not in str(error)


@pytest.mark.parametrize(
    "error", [UnknownRelationError("x", ("a", "b")), UnknownAttributeError("x", ("a", "b"))]
)
def test_the_known_ids_are_listed(error: RcmlError) -> None:
    rejection = rejection_of(error)
    assert rejection is not None
    assert rejection.known == ("a", "b")


@pytest.mark.parametrize("error", [UnreachableError("/secret"), StorageError("/secret")])
def test_a_failing_server_or_disk_is_named_to_nobody(error: RcmlError) -> None:
    rejection = rejection_of(error)
    assert rejection is not None
    assert "secret" not in rejection.detail
    assert rejection.headers == {"Retry-After": "1"}
