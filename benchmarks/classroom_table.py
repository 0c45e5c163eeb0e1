"""docs/classroom.md, made from `results/classroom.json`: `python -m benchmarks.classroom_table` rewrites it."""

from __future__ import annotations

import statistics
from itertools import pairwise

from benchmarks import pages
from benchmarks.pages import Figures

RESULTS, PAGE = pages.results_of("classroom"), pages.page_of("classroom")
LARGEST_ADDED = 60e6  # bytes that a further kernel's model adds to its imports, at rest
STAGES = {"imports": "imports of a load", "loaded": "model loaded, at rest", "after speech": "after speech, at rest"}


def committed() -> Figures:
    return pages.committed(RESULTS)


def added(results: Figures, stage: str) -> list[int]:
    """What each kernel's step added to the memory of the machine, in bytes, one after another."""
    before = results["totals"]["imports" if stage == "loaded" else "loaded"][-1] if stage != "imports" else 0
    totals = [before, *results["totals"][stage]]
    return [now - then for then, now in pairwise(totals)]


def further(results: Figures, stage: str = "loaded") -> float:
    """Bytes that a kernel but the first adds over its imports: the median."""
    found = statistics.median(added(results, "loaded")[1:])
    return found if stage == "loaded" else found + statistics.median(added(results, stage)[1:])


def of_its_own(results: Figures) -> int:
    """Bytes that a model read into memory of its own adds."""
    own = results["of its own"]
    return int(own["loaded"]["uss"] - own["imports"]["uss"])


def failures(results: Figures) -> list[str]:
    """What of the target is missed, a line each."""
    if (most := further(results)) > LARGEST_ADDED:
        return [f"a further kernel's model adds {_mb(most)}; {_mb(LARGEST_ADDED)} are allowed"]
    return []


def verdict(results: Figures) -> str:
    missed = failures(results)
    return f"**Missed**: {missed[0]}." if missed else "It is met."


def _mb(count: float) -> str:
    return f"{count / 1e6:.0f} MB"


def table(results: Figures) -> str:
    """Medians of the kernels at each stage."""
    head = ("", "PSS of a kernel", "of it anonymous", "of it files", "USS", "PSS of all together", "a further one adds")
    lines = pages.head(*head)
    for stage, name in STAGES.items():
        runs = results["stages"][stage]
        cells = [_mb(statistics.median(run[part] for run in runs)) for part in ("pss", "anonymous", "file", "uss")]
        each = _mb(statistics.median(added(results, stage)[1:]))
        lines.append(f"| {name} | {' | '.join(cells)} | {_mb(sum(run['pss'] for run in runs))} | {each} |")
    return "\n".join(lines)


def page(results: Figures) -> str:
    """docs/classroom.md, whole."""
    count, own, many = results["kernels"], of_its_own(results), 30
    _, weights, marker = results["plan"]
    imports, loaded = (sum(run["pss"] for run in results["stages"][stage]) for stage in ("imports", "loaded"))
    each, spoken = statistics.median(added(results, "imports")[1:]), further(results, "after speech")
    total = loaded + count * statistics.median(added(results, "after speech")[1:]) + (many - count) * (each + spoken)
    seconds = statistics.median(results["load_seconds"][1:])
    return f"""# A class on one machine

Made by `{results["command"]}` from `benchmarks/results/classroom.json`; a test holds it to that.

At int8 on a CPU every kernel maps the same file of quantized weights, and all share one copy in memory. What a kernel
has of its own are Python, its imports and what it works with.

## Setting it up

```bash
export CHATTERBOX_NB_MODEL=english
export MODEL_DTYPE=int8
export QUANTIZED_CACHE_DIR=/srv/chatterbox/quantized  # one folder for all, on a local disk
export MODEL_CACHE_DIR=/srv/chatterbox/hub
export MEMORY_CLEANUP_INTERVAL=1  # each take gives back what it worked with; 5 is the default
export OMP_NUM_THREADS=1  # of each kernel: with many at work, more threads only wait for each other
```

1. Put these where every kernel gets them: JupyterHub's `c.Spawner.environment`, the `env` of a `kernel.json`, or a
   `.env` above the notebooks.
2. Load once as the user who owns the folder, which writes the {_mb(weights)}. Who may list the folder may read the file
   (`chmod 755 /srv/chatterbox/quantized`); only its owner need be able to write there.
3. Let everybody load the same model with the same settings: other `INT8_ROWS_OFF` and other versions of the package
   are other files. `--kernel dynamic` has a layout of its own and shares nothing.
4. The file must be the same one for all: one host, or containers that mount one folder.

## Measured

{table(results)}

Medians of {count} kernels. The target: with its model loaded, a kernel but the first has at most
{_mb(LARGEST_ADDED)} over its imports. {verdict(results)} After speech it has {_mb(spoken)}, which is
{"within that" if spoken <= LARGEST_ADDED else "more than that"}: speech leaves {_mb(spoken - further(results))} behind,
although each take gives back what it can.

* Models add {_mb(loaded - imports)} for all {count}, of which {_mb(added(results, "loaded")[0])} came with the first.
  A copy each would add {_mb(own)} each, {_mb(count * own)} in all.
* A kernel that has to compile T3's step keeps about 50 MB of the compiler; the next ones read what it compiled.
* A load took {seconds:.1f} s, once the file was there.

Imports are most of what a class takes: {many} kernels that have spoken would come to {total / 1e9:.1f} GB, and with a
copy each to {(total + (many - 1) * weights) / 1e9:.1f} GB. That is worked out, not measured.

## How

Measured {_where(results)}.

* {count} Jupyter kernels, started one after another and all kept running. Each makes the imports that a load makes,
  then loads random weights of the English model's size from the same cache, then speaks
  {results["spoken_tokens"]} tokens, with {results["cfm_steps"]} steps of the flow.
* Bytes are of `/proc/PID/smaps_rollup`; a MB is 10⁶ bytes.
* PSS counts a page that n processes share as 1/n in each, so sums are memory of the machine. USS is what a process
  shares with nobody. "A further one adds" is what the sum of all grew by, the first kernel left out.
* Of what a model adds, {_mb(marker)} are the watermark's network. The rest is T3's compiled step, what loaded modules
  are made of, and free memory that the C library keeps.
"""


def _where(results: Figures) -> str:
    how = f"torch {results['torch']}, OMP_NUM_THREADS={results['threads']}, kernel `{results['plan'][0]}`"
    return f"{results['date']} on {results['machine']}; {how}"


def write(results: Figures) -> None:
    pages.keep(RESULTS, results)
    PAGE.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    PAGE.write_text(page(committed()), encoding="utf-8")
