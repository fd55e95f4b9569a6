"""Writes the states of this version, and the numbers that come out of them: `python tests/snapshots/make_snapshots.py`.

Run it once per release, on the version that is released, and never again for an old one: `tests/snapshots/VERSION/` stays as it is.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import barograph as bg

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent / "e2e")]

from sidecar_folder import make_folder, numbers_of_folder  # noqa: E402
from states import STATES  # noqa: E402


def main() -> None:
    folder = HERE / bg.__version__
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    numbers = {}
    for name, state in STATES.items():
        data = state.write(state.make())
        (folder / f"{name}.baro").write_bytes(data)
        numbers[name] = state.numbers(state.read(data))
    make_folder(folder / "sidecar")
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder / "sidecar", Path(copy) / "data")
        numbers["sidecar"] = numbers_of_folder(Path(copy))
    (folder / "numbers.json").write_text(json.dumps(numbers, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{folder}: {sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()):,} bytes")


if __name__ == "__main__":
    main()
