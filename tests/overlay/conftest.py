"""A store, and overlays over an empty tree in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.store import Store
from tests.overlay.workbench import Bench, empty_tree


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def bench(tmp_path: Path, store: Store, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(tmp_path / "overlay", store, empty_tree(store))
    yield made
    if not request.node.get_closest_marker("damaged"):
        assert made.overlay.check(store.get) == []
    made.overlay.close()
