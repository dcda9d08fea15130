"""How a test of programs ends: what they left is mounted again, and the store is in order."""

from tests.acceptance.person import Person


def unmounted_in_order(person: Person) -> None:
    """Unmounts, and has the store verified."""
    person.unmount()
    person.verify()
