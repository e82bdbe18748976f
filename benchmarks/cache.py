"""The data cache against its claims: `python -m benchmarks.cache [--quick]`.

Claims, for a million people: opened in under a second, under 100 MB of a process's own memory
after 20,000 random rows, under 100 microseconds a random row. Columns are generated, 4 kB a row;
the pages are warm, since they were just written.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datasets.cache import NUMBER_COLUMNS, TEXT_COLUMNS, InstanceTable, write_table
from datasets.humandata.reader import Columns

_PART = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="200,000 rows")
    parser.add_argument("--folder", type=Path, help="where the cache is made (4 GB), then deleted")
    arguments = parser.parse_args()
    rows = 200_000 if arguments.quick else arguments.rows

    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        cache = Path(folder) / "table"
        start = time.perf_counter()
        write_table(cache, generated(rows))
        written_s = time.perf_counter() - start

        before_mb = own_memory_mb()
        start = time.perf_counter()
        table = InstanceTable(cache)
        first = table[0]
        open_s = time.perf_counter() - start
        assert first.row == 0

        chosen = np.random.default_rng(0).integers(0, rows, 20_000).tolist()
        seconds = []
        for i in chosen:
            start = time.perf_counter()
            person = table[i]
            seconds.append(time.perf_counter() - start)
            assert person.row == i
        added_mb = own_memory_mb() - before_mb
        size_gb = sum(path.stat().st_size for path in cache.iterdir()) / 1e9

    quick = " --quick" if arguments.quick else ""
    median_us, slow_us = np.percentile(seconds, [50, 99]) * 1e6
    print(f"python -m benchmarks.cache{quick}   {rows:,} rows, {size_gb:.1f} GB")
    print(f"written in             {written_s:8.1f} s")
    print(f"open and first row     {open_s * 1e3:8.1f} ms   {open_s:.4f} of the claim (1 s)")
    print(f"own memory added       {added_mb:8.1f} MB   {added_mb / 100:.4f} of the claim (100 MB)")
    print(
        f"random row, median     {median_us:8.1f} us   {median_us / 100:.4f} of the claim (100 us)"
    )
    print(f"random row, 99 %       {slow_us:8.1f} us")


def generated(rows: int) -> Iterator[Columns]:
    rng = np.random.default_rng(0)
    base = {
        name: rng.integers(0, 2, (_PART, *shape)).astype(dtype)
        for name, (dtype, shape) in NUMBER_COLUMNS.items()
    }
    for start in range(0, rows, _PART):
        count = min(_PART, rows - start)
        texts = {name: np.full(count, "") for name in TEXT_COLUMNS}
        paths = np.char.add("sequence/", np.arange(start, start + count).astype(str))
        columns = {name: column[:count] for name, column in base.items()}
        yield columns | texts | {"image_path": paths, "row": np.arange(start, start + count)}


def own_memory_mb() -> float:
    """Memory that no other process shares (Linux)."""
    status = Path(f"/proc/{os.getpid()}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
