"""Who acts in the cases, by number."""

EXTRA_GROUP = 4242
"""A second group of the ordinary user."""

STRANGER, STRANGERS = 4243, 4243
"""Somebody who has nothing to do with anybody else, and his group."""

OWNER, OWNERS = 4251, 4251
"""Somebody who owns files in cases with several people, and his group."""

COLLEAGUE = 4252
"""A member of the owner's group."""
