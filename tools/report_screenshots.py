"""Screenshots of a study's report for the documents: its beginning on a desk, and three screens of it on a phone.

    python tools/report_screenshots.py studies/tts_blackhole docs/images

Writes report.png and report_phone.png into the folder; Debian's chromium, playwright and Pillow must be installed.
"""

import argparse
import io
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # of a checkout that is not installed

from precision_search.report.page import render  # noqa: E402 - found only now
from precision_search.report.results import read_results  # noqa: E402

DESK = ViewportSize(width=1200, height=1500)
PHONE = ViewportSize(width=390, height=844)
SCREENS = ("header", "#clip-0", "#abx-test")
"""Where the screens of the phone begin."""
GAP = 24
DENSITY = 2
"""Of a phone's screen."""
COLOURS = 96
"""Of the palette: pictures of text and plots need no more, and are a quarter of the size."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Take the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of a finished study")
    parser.add_argument("out", type=Path, help="folder to write to")
    asked = parser.parse_args(arguments)
    chromium = shutil.which("chromium")
    if chromium is None:
        parser.error("no chromium on the path: apt-get install chromium")
    try:
        text = render(read_results(asked.study))
    except ValueError as error:
        parser.error(str(error))
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report = Path(folder) / "report.html"
        report.write_text(text, encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        shots = {"report.png": _desk(browser, report), "report_phone.png": _phone(browser, report)}
        browser.close()
    for name, picture in shots.items():
        picture.quantize(COLOURS, dither=Image.Dither.NONE).save(asked.out / name, optimize=True)
        print(f"{asked.out / name}: {picture.width} x {picture.height}, {(asked.out / name).stat().st_size:,} bytes")


def _desk(browser: Browser, report: Path) -> Image.Image:
    page = browser.new_page(viewport=DESK, color_scheme="light")
    page.goto(report.as_uri())
    return _picture(page)


def _phone(browser: Browser, report: Path) -> Image.Image:
    """The screens side by side."""
    page = browser.new_page(viewport=PHONE, color_scheme="light", device_scale_factor=DENSITY)
    page.goto(report.as_uri())
    screens = []
    for anchor in SCREENS:
        page.locator(anchor).evaluate("element => element.scrollIntoView({behavior: 'instant'})")
        page.wait_for_timeout(500)  # pictures are decoded when they are seen
        screens.append(_picture(page))
    width, height = screens[0].size
    sheet = Image.new("RGB", (len(screens) * (width + GAP) - GAP, height), "#d8d8d8")
    for number, screen in enumerate(screens):
        sheet.paste(screen, (number * (width + GAP), 0))
    return sheet


def _picture(page: Page) -> Image.Image:
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


if __name__ == "__main__":
    main()
