"""What a panel that shows memory costs the kernel: `python -m benchmarks.panels`, when the machine is idle.

A kernel with the demo voice, as it is without a panel, with one that a page shows and with one that no page shows, one
after the other in the same process; processor time is the process's own, as a part of one core. And a tick by itself,
two hundred of them without a pause, each with new figures to send. The two differ by what a processor takes to get back
to work that it left a second ago, which on some virtual machines is nearly all; two calls of psutil show how much.
"""

from __future__ import annotations

import re
import statistics
from datetime import date
from typing import Any

from benchmarks import pages
from benchmarks.kernel import started
from chatterbox_nb.precision import device

RESULTS = pages.results_of("panels")
BEGIN, END = "<!-- panels: begin -->", "<!-- panels: end -->"
SECONDS, ROUNDS = 20, 3
SETUP = f"""
%load_ext chatterbox_nb
import psutil, time, chatterbox_nb as tts
from chatterbox_nb.notebook.panels import pump
process = psutil.Process()
tts.load('demo', 'int8')

def part_of_a_core():
    begun, used = time.monotonic(), time.process_time()
    time.sleep({SECONDS})
    return (time.process_time() - used) / (time.monotonic() - begun)
"""
TICKS = 200
AWAKE = f"""
def seconds_of_a_tick():
    memory = next(part for part in panel._board.parts if part.name == 'memory')
    used = time.process_time()
    for _ in range({TICKS}):
        memory._table = ''
        pump.get()._draw(False, True)
    return (time.process_time() - used) / {TICKS}

def seconds_of_a_reading(pause):
    found = []
    for _ in range(9):
        time.sleep(pause)
        used = time.thread_time()
        process.memory_info(), psutil.virtual_memory()
        found.append(time.thread_time() - used)
    return sorted(found)[4]
"""
STATES = {
    "without": "",
    "shown": "panel = tts.panel(); panel._board.root._view_count = 1; time.sleep(3)",
    "not shown": "panel._board.root._view_count = 0; time.sleep(3)",
}


def measure() -> dict[str, Any]:
    """Parts of a core by state, and milliseconds of a tick and of a reading, one for each round."""
    found: dict[str, Any] = {"parts": {state: [] for state in STATES}, "tick_ms": [], "reading_ms": {}}
    with started() as kernel:
        kernel.ask(SETUP + AWAKE)
        for _ in range(ROUNDS):
            for state, prepare in STATES.items():
                found["parts"][state].append(round(kernel.ask(prepare, "part_of_a_core()"), 5))
            prepare = "panel._board.root._view_count = 1; time.sleep(2)"
            found["tick_ms"].append(round(1e3 * kernel.ask(prepare, "seconds_of_a_tick()"), 3))
            kernel.ask("panel.close(); del panel")
        for name, pause in (("at once", 0), ("after a second", 1)):
            found["reading_ms"][name] = round(1e3 * kernel.ask("", f"seconds_of_a_reading({pause})"), 3)
    return found


def line(results: dict[str, Any]) -> str:
    """What the README says of it."""
    shown, hidden, without = (
        100 * statistics.median(results["parts"][state]) for state in ("shown", "not shown", "without")
    )
    tick, reading = statistics.median(results["tick_ms"]), results["reading_ms"]
    return (
        f"Live memory costs {tick:.1f} ms of processor time a second, {tick / 10:.2f} % of a core, while the processor "
        f"is awake. In an idle kernel of this virtual machine the panel takes {shown:.1f} % while it is shown and "
        f"{hidden:.1f} % when it is not, and a kernel without one {without:.1f} %: here two calls of psutil take "
        f"{reading['at once']:.2f} ms at once and {reading['after a second']:.1f} ms after a second's sleep (measured "
        f"{results['date']} by `python -m benchmarks.panels` on {results['machine']}; medians of {ROUNDS} rounds)."
    )


def main() -> None:
    results = {"date": date.today().isoformat(), "machine": device.processor(), **measure()}
    pages.keep(RESULTS, results)
    readme = pages.ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(re.sub(f"{BEGIN}.*?{END}", f"{BEGIN}\n{line(results)}\n{END}", text, flags=re.DOTALL))
    print(line(results))


if __name__ == "__main__":
    main()
