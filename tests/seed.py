"""The seed of random tests: `IMAGEFS_TEST_SEED`, or another one for every run."""

import os
import random

_given = os.environ.get("IMAGEFS_TEST_SEED")
# Not the module's own generator, which plugins of pytest seed.
SEED = int(_given) if _given else random.SystemRandom().randrange(10**6)
