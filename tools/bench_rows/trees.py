"""Trees made for the benchmarks; kept for the length of a run."""

from pathlib import Path

from bench_rows.bench import Bench

PER_FOLDER = 500


def many_entries(bench: Bench) -> Path:
    """A tree of `bench.entries` small files, a few hundred to a directory."""
    top = bench.scratch / "many-entries"
    if top.exists():
        return top
    partial = bench.folder("many-entries")
    for number in range(bench.entries // PER_FOLDER):
        folder = partial / f"{number % 40:02}" / f"{number:05}"
        folder.mkdir(parents=True)
        for name in range(PER_FOLDER - 1):
            (folder / f"file-{name:03}").write_bytes(b"%d in %d\n" % (name, number))
    return partial.rename(top)
