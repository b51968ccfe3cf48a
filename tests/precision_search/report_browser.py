"""A browser that watches a report: what it asks for, what goes wrong, what it plays and how legible it is."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Locator, Page

CHROMIUM = shutil.which("chromium")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--autoplay-policy=no-user-gesture-required",
)
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
# Notes each sound that the page begins: a number that tells its samples apart, where it begins, and its level.
EAVESDROP = """
window.heard = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when, offset, ...rest) {
  const samples = this.buffer.getChannelData(0);
  let sum = 0, power = 0;
  for (const sample of samples) {
    sum = (31 * sum + Math.round(32768 * sample)) % 2147483647;
    power += sample * sample;
  }
  window.heard.push({sum, offset, loop: this.loop, level: Math.sqrt(power / samples.length) * window.ramped});
  return start.call(this, when, offset, ...rest);
};
const ramp = AudioParam.prototype.linearRampToValueAtTime;
AudioParam.prototype.linearRampToValueAtTime = function (value, ...rest) {
  if (value > 0) window.ramped = value;
  return ramp.call(this, value, ...rest);
};
"""
# Of every text that is seen on a plain ground: its contrast to that ground by WCAG 2.2, and the text.
CONTRASTS = """() => {
  const parse = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
  const linear = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      if (style.backgroundImage !== 'none') return null;
      const colour = parse(style.backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
    if (!text || element.closest('svg, script, option, .heard') || !element.checkVisibility()) continue;
    const behind = ground(element);
    if (!behind) continue;
    const [one, two] = [luminance(parse(getComputedStyle(element).color)), luminance(behind)];
    found.push([(Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05), text]);
  }
  return found;
}"""
# The name of a control, as a screen reader has it.
NAME = """(element) => element.getAttribute('aria-label') || element.textContent
    || [...(element.labels || [])].map((label) => label.textContent).join(' ')"""


@dataclass
class Watched:
    """A page and whatever went wrong on it or was asked of the network."""

    page: Page
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def opened(browser: Browser, report: Path, script: str = "", **options: Any) -> Iterator[Watched]:
    """The report in a fresh context; on leaving, no fault and no request beyond the file itself is allowed."""
    context: BrowserContext = browser.new_context(**({"viewport": DESK, "offline": True} | options))
    try:
        if script:
            context.add_init_script(script)
        watched = Watched(context.new_page())
        page = watched.page
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: watched.faults.append(str(error)))
        page.on("console", lambda said: watched.faults.append(f"{said.type}: {said.text}"))
        page.on("request", lambda request: watched.requests.append(request.url))
        page.goto(report.as_uri())
        yield watched
        assert watched.faults == []
        assert {url for url in watched.requests if not url.startswith("data:")} <= {report.as_uri()}
    finally:
        context.close()


def act(page: Page, name: str) -> None:
    # A press without waiting for the pointer: the page's own handler is what is tested.
    page.locator(f'[data-act="{name}"]').dispatch_event("click")


def play(page: Page, side: str) -> dict[str, Any]:
    """Press a play button, and what the page then began to play."""
    before = page.evaluate("window.heard.length")
    act(page, f"play-{side}")
    page.wait_for_function("before => window.heard.length > before", arg=before)
    return page.evaluate("window.heard.at(-1)")


def trial(page: Page, right: bool) -> None:
    """Listen to all three, which tells what X is, and answer accordingly, or not."""
    sums = {side: play(page, side)["sum"] for side in "abx"}
    assert sums["a"] != sums["b"]
    is_a = sums["x"] == sums["a"]
    assert is_a or sums["x"] == sums["b"]
    act(page, "answer-a" if is_a == right else "answer-b")
    act(page, "next")


def score(page: Page) -> dict[str, str]:
    return page.locator("#abx-score").evaluate("element => ({...element.dataset})")


def told_by(page: Page) -> str | None:
    tip = page.locator("#tooltip")
    return tip.text_content() if tip.is_visible() else None


def mark_of_front(page: Page) -> Locator:
    return page.locator("#front .mark").first
