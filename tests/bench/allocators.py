"""One instance's life in every allocator: allocate, instantiate, touch memory, drop, wipe. Times and page faults.

`make bench`, or `python tests/bench/allocators.py [--cycles N]` from the checkout. One process, one thread, the module
compiled before: what is measured is what a start costs when everything else is ready. Huge pages are used if the
machine has them free (as root: echo 16 > /proc/sys/vm/nr_hugepages), and left out, with a line that says so, if not.
"""

import argparse
import platform
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from demo.host import huge_pages
from tests.allocation import GUEST, Pool, open_pool

KIB, MIB = 1024, 1024 * 1024
MEMORY_PAGES = 160
SLOTS = 2
TOUCHED = (64 * KIB, MIB, 10 * MIB)
CASES = (
    ("on-demand", 4 * KIB),
    ("base-pages", 4 * KIB),
    ("compact", 4 * KIB),
    ("compact", 2 * MIB),
    ("guarded", 2 * MIB),
)


def main() -> int:
    """Prints one line per allocator and touched size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=400, help="lives per line; the first tenth is not counted")
    cycles: int = parser.parse_args().cycles
    if cycles < 20:
        parser.error(f"--cycles is {cycles}; at least 20 are wanted, for a 99th percentile of anything")
    print(f"{platform.machine()}, kernel {platform.release()}, Python {platform.python_version()}, {cycles} cycles")
    print(f"memory of {MEMORY_PAGES} pages of 64 KiB; us per life, median and 99th percentile; minor faults per life\n")
    print(f"{'allocator':<12}{'pages':>7}{'touched':>10}{'median':>10}{'p99':>10}{'faults':>9}")
    for kind, page_bytes in CASES:
        needed = SLOTS * MEMORY_PAGES * 64 * KIB // page_bytes
        if page_bytes == 2 * MIB and huge_pages().free < needed:
            print(f"{kind:<12}{'2 MiB':>7}   left out: {needed} huge pages wanted, {huge_pages().free} free")
            continue
        with open_pool(kind, slots=SLOTS, memory_pages=MEMORY_PAGES, page_bytes=page_bytes) as pool:
            for touched in TOUCHED:
                seconds, faults = zip(*_lives(pool, touched, cycles), strict=True)
                counted = sorted(seconds[cycles // 10 :])
                median, late = statistics.median(counted) * 1e6, counted[int(len(counted) * 0.99)] * 1e6
                per_life = statistics.mean(faults[cycles // 10 :])
                pages = "4 KiB" if page_bytes == 4 * KIB else "2 MiB"
                amount = f"{touched // KIB} KiB" if touched < MIB else f"{touched // MIB} MiB"
                print(f"{kind:<12}{pages:>7}{amount:>10}{median:>10.1f}{late:>10.1f}{per_life:>9.1f}")
    return 0


def _lives(pool: Pool, touched: int, cycles: int) -> Iterator[tuple[float, int]]:
    module = pool.compiled(GUEST.format(limits=MEMORY_PAGES))
    for _ in range(cycles):
        faults, began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        guest = pool.start(module)
        guest.call("fill", 0, 1, touched)
        guest.close()
        yield time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults


if __name__ == "__main__":
    raise SystemExit(main())
