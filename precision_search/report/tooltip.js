// Tooltip: tells what a mark of a plot stands for, on hover, on focus and on touch.
// A mark is an element of class `mark` with its text in `data-told`; Escape hides the text again.
(() => {
  "use strict";
  const REACH = 24;  // px around a finger within which a mark counts as touched
  const GAP = 8;     // px between a mark and its text, and between the text and the edge of the window
  const LINGER = 150;  // ms in which the pointer may move from the mark into the text

  const tip = document.getElementById("tooltip") || document.createElement("div");
  tip.id = "tooltip";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  document.body.append(tip);
  let shown = null;
  let leaving = 0;

  // The browser would show an SVG's title a second later beside our text; as a label it is still read out.
  function label(node) {
    const title = node.querySelector(":scope > title");
    if (!title) return;
    node.setAttribute("aria-label", title.textContent);
    node.removeAttribute("aria-labelledby");
    title.remove();
  }
  for (const mark of document.querySelectorAll(".mark[data-told]")) {
    label(mark);
    if (!mark.hasAttribute("role")) mark.setAttribute("role", "img");
    const svg = mark.closest("svg");
    if (svg && svg.getAttribute("role") === "img") {
      label(svg);
      svg.setAttribute("role", "group");  // what is inside an image nobody can reach
    }
  }

  const markOf = (target) => (target instanceof Element ? target.closest(".mark[data-told]") : null);

  function place() {
    if (!shown) return;
    const mark = shown.getBoundingClientRect();
    const width = document.documentElement.clientWidth;
    const height = document.documentElement.clientHeight;
    // What has the focus is about to be scrolled into view, or the reader scrolls past it and comes back.
    if ((mark.bottom < 0 || mark.top > height) && shown !== document.activeElement) {
      hide();
      return;
    }
    const box = tip.getBoundingClientRect();
    const middle = (mark.left + mark.right) / 2 - box.width / 2;
    const left = Math.max(GAP, Math.min(middle, width - box.width - GAP));
    const under = mark.bottom + GAP;
    const over = mark.top - GAP - box.height;
    const top = under + box.height + GAP <= height || over < GAP ? under : over;
    tip.style.left = `${left}px`;
    tip.style.top = `${Math.max(GAP, Math.min(top, height - box.height - GAP))}px`;
  }

  function show(mark) {
    clearTimeout(leaving);
    if (mark === shown) return;
    hide();
    shown = mark;
    tip.textContent = mark.dataset.told;
    tip.style.left = tip.style.top = "0";
    tip.hidden = false;
    // What is already the mark's name need not be read out twice.
    if (mark.getAttribute("aria-label") !== mark.dataset.told) mark.setAttribute("aria-describedby", "tooltip");
    mark.classList.add("told");
    place();
  }

  function hide() {
    clearTimeout(leaving);
    tip.hidden = true;
    if (!shown) return;
    shown.removeAttribute("aria-describedby");
    shown.classList.remove("told");
    shown = null;
  }

  function leave() {
    clearTimeout(leaving);
    leaving = setTimeout(() => {
      // A mark that has the focus keeps its text when the pointer goes.
      const focused = markOf(document.activeElement);
      if (focused) show(focused);
      else hide();
    }, LINGER);
  }

  function nearest(svg, x, y) {
    let found = null;
    let least = REACH;
    for (const mark of svg.querySelectorAll(".mark[data-told]")) {
      const box = mark.getBoundingClientRect();
      const across = Math.max(box.left - x, 0, x - box.right);
      const down = Math.max(box.top - y, 0, y - box.bottom);
      const away = Math.hypot(across, down);
      if (away < least) [found, least] = [mark, away];
    }
    return found;
  }

  document.addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch") return;
    const mark = markOf(event.target);
    if (mark) show(mark);
    else if (tip.contains(event.target)) clearTimeout(leaving);
    else if (shown) leave();
  });
  document.addEventListener("pointerup", (event) => {
    if (event.pointerType !== "touch" || tip.contains(event.target)) return;
    const svg = event.target instanceof Element ? event.target.closest("svg") : null;
    const mark = markOf(event.target) || (svg && nearest(svg, event.clientX, event.clientY));
    if (mark) show(mark);
    else hide();
  });
  document.addEventListener("focusin", (event) => {
    const mark = markOf(event.target);
    if (mark) show(mark);
    else hide();
  });
  document.addEventListener("focusout", (event) => {
    if (markOf(event.target) === shown) hide();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && shown) hide();
  });
  document.addEventListener("scroll", place, { capture: true, passive: true });
  window.addEventListener("resize", place);
})();
