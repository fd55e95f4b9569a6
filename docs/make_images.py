"""Pictures of pages, by the code that stands on them: `python docs/make_images.py`."""

import os
import re
import shutil
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
KEPT = {
    "start/notebook": ["column.svg", "report.svg"],
    "start/serving": ["history.svg", "amount.svg"],
    "guides/history": ["timeline.svg"],
}


def main() -> None:
    (DOCS / "images").mkdir(exist_ok=True)
    for page, images in KEPT.items():
        code = re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(encoding="utf-8"), re.S)
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            exec(compile("\n".join(code), page, "exec"), {})
            for image in images:
                shutil.copy(image, DOCS / "images" / image)
            os.chdir(DOCS)


if __name__ == "__main__":
    main()
