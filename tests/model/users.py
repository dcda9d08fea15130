"""Who works in the trees: numbers that no account of the host has."""

ALICE, BOB, TEAM = 51001, 51002, 51100

USERS = {
    "root": (0, 0, [0]),
    "alice": (ALICE, ALICE, [TEAM]),
    "bob": (BOB, BOB, [BOB]),
}
"""User, group, further groups."""
