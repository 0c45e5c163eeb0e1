"""`python -m demo_voice`: the whole voice, or one stage of it, into a folder; `--install` puts it into the package."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from benchmarks import pages
from demo_voice import card, stages
from demo_voice.recipe import RECIPES

_ROOT = Path(__file__).parent.parent
_PLACES = {"checkpoint": _ROOT / "chatterbox_nb" / "demo", "data": _ROOT / "tests" / "data"}


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m demo_voice", description=__doc__)
    options.add_argument("--recipe", choices=RECIPES, default="full")
    options.add_argument("--folder", type=Path, help="out/demo-voice, or out/demo-voice-quick")
    options.add_argument("--only", choices=[stage.name for stage in stages.STAGES], help="this stage, again")
    options.add_argument(
        "--install", action="store_true", help="copy what was made into chatterbox_nb/demo and tests/data"
    )
    asked = options.parse_args()
    folder = asked.folder or _ROOT / "out" / ("demo-voice" if asked.recipe == "full" else f"demo-voice-{asked.recipe}")
    if asked.only:
        stages.run(folder, asked.recipe, next(stage for stage in stages.STAGES if stage.name == asked.only))
        return
    stages.run_all(folder, asked.recipe)
    if asked.install:
        install(folder)


def install(folder: Path) -> None:
    """Puts the checkpoint into the package, what it is judged by where the tests look, and writes the card."""
    for name, place in _PLACES.items():
        for path in (folder / name).iterdir():
            shutil.copyfile(path, place / path.name)
            print(f"{place / path.name}: {path.stat().st_size:,} bytes")
    pages.keep(card.RESULTS, card.results(folder))
    card.rewrite()


if __name__ == "__main__":
    main()
