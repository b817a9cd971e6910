"""The picture of a report for the README.

    python docs/picture.py DIR/report.html docs/images/report.png

Needs a Chromium on the machine and the package playwright.
"""

from __future__ import annotations

import shutil
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT = 1100, 1180
COLOURS = 128
LARGEST_BYTES = 300_000


def photograph(report: Path) -> bytes:
    """The top of a report as PNG, twice the pixels for sharp text."""
    from playwright.sync_api import sync_playwright

    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=2, color_scheme="light"
        )
        page.goto(report.resolve().as_uri())
        picture = page.screenshot()
        browser.close()
    return bytes(picture)


def main() -> None:
    """Take the picture and store it with few colours."""
    report, destination = map(Path, sys.argv[1:])
    image = Image.open(BytesIO(photograph(report))).convert("RGB")
    few = image.quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(destination, optimize=True)
    size = destination.stat().st_size
    if size > LARGEST_BYTES:
        raise SystemExit(f"{destination} has {size:,} bytes, more than {LARGEST_BYTES:,}")


if __name__ == "__main__":
    main()
