"""Ground for the suites to run on, as root and as an ordinary user."""

from collections.abc import Iterator

import pytest

from tests.acceptance.person import Person
from tests.suites.ground import Ground, made


@pytest.fixture
def ground(root: Person) -> Iterator[Ground]:
    with made(root, root) as ground:
        yield ground


@pytest.fixture
def private_ground(user: Person) -> Iterator[Ground]:
    """An ordinary user's, in a mount of his own."""
    with made(user, user) as ground:
        yield ground


@pytest.fixture
def public_ground(root: Person, user: Person) -> Iterator[Ground]:
    """For an ordinary user, in a mount by root for everybody."""
    with made(root, user, "--allow-other") as ground:
        yield ground
