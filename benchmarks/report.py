"""Time the page of a made-up sweep: how long it takes to make, how large it is, how long Chromium takes to open it.

python benchmarks/report.py [--trials 6,300,2000] [--repeat 3]

"Made" is reading the records and writing the page, in a process that has imported everything, and its CPU time. "Opened" is from the
navigation until the charts that can be seen are drawn and the filters work, in a headless Chromium with 1200 x 900 pixels. The last
column is the CPU time that the browser's page spent until then.
"""

import argparse
import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from chromium import Tab, find_chromium, visit
from made_up_sweep import made_up_sweep, write_sweep

from birdclef_core.store.storage import Storage
from sweeps.report.page.writing import make_report


def opened(page: Path) -> tuple[float, float]:
    """Return the seconds until a page is ready in Chromium, and the CPU seconds that it spent."""
    found: list[float] = []

    async def work(tab: Tab) -> None:
        await tab.call("Performance.enable")
        found.append(float(await tab.wait_for("document.documentElement?.dataset.ready", 120.0)) / 1000)
        metrics = (await tab.call("Performance.getMetrics"))["metrics"]
        found.append(next(item["value"] for item in metrics if item["name"] == "ProcessTime"))
        await asyncio.sleep(0)

    visit(page, work)
    return found[0], found[1]


def main() -> None:
    """Print a row for each number of trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", default="6,300,2000", help="numbers of trials (default 6,300,2000)")
    parser.add_argument("--repeat", type=int, default=3, help="how often each is repeated (default 3)")
    arguments = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'trials':>7} {'made s':>8} {'CPU s':>8} {'MB':>6} {'opened s':>9} {'CPU s':>8}   medians of {arguments.repeat}")
    for number in map(int, arguments.trials.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            write_sweep(Path(folder), *made_up_sweep(number))
            storage = Storage.parse(folder)
            page = make_report(storage, ["s"], None)  # imports are not counted
            made = []
            for _ in range(arguments.repeat):
                wall_s, cpu_s = time.perf_counter(), time.process_time()
                make_report(storage, ["s"], None)
                made.append((time.perf_counter() - wall_s, time.process_time() - cpu_s))
            opens = [opened(page) for _ in range(arguments.repeat)] if find_chromium() else [(float("nan"), float("nan"))]
            figures = [statistics.median(column) for column in (*zip(*made, strict=True), *zip(*opens, strict=True))]
            print(
                f"{number:>7} {figures[0]:>8.2f} {figures[1]:>8.2f} {page.stat().st_size / 1e6:>6.2f} {figures[2]:>9.2f} {figures[3]:>8.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
