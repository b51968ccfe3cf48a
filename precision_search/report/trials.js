// Trials: the blind test on a Deck of abx.js, and its score. What X is, only this closure knows.
(() => {
  "use strict";
  const test = document.getElementById("abx-test");
  if (!test || !window.AudioContext || !window.crypto) return;  // the page says what is needed
  const SHORTEST = 0.1;  // seconds of the part that is heard, at least
  const find = (id) => document.getElementById(`abx-${id}`);
  const button = (act) => test.querySelector(`[data-act="${act}"]`);
  const [picked, from, to, loop, position] = ["clip", "from", "to", "loop", "position"].map(find);

  const players = new Map();
  for (const player of document.querySelectorAll("audio[data-clip][data-side]")) {
    const { clip, side } = player.dataset;
    players.set(clip, { ...players.get(clip), [side]: player });
  }
  for (const [name, { reference, candidate }] of players) {
    if (reference && candidate && reference.dataset.rate === candidate.dataset.rate) picked.add(new Option(name, name));
  }
  if (!picked.length) {
    find("without").textContent = "There is no clip of which both sides can be played.";
    return;
  }
  find("without").hidden = true;
  test.hidden = false;

  // --- playing ------------------------------------------------------------------------------------------------------

  const part = () => ({ start: Number(from.value), end: Number(to.value), loop: loop.checked });
  const deck = new Deck(players, part, (act) => {
    for (const key of ["play-a", "play-b", "play-x"]) button(key).setAttribute("aria-pressed", String(key === act));
    follow();
  });

  function follow() {
    position.value = deck.share();
    if (deck.playing) requestAnimationFrame(follow);
  }

  async function play(letter) {
    const drawn = trial;
    for (const player of document.querySelectorAll("audio")) player.pause();
    try {
      const side = letter === "x" ? trial[trial.x] : trial[letter];
      const began = await deck.play(picked.value, side, `play-${letter}`);
      if (began && letter === "x") drawn.heard = true;
    } catch (fault) {
      say(`${picked.value} cannot be played: ${fault.message}`);
    }
  }

  function tellPart() {
    for (const slider of [from, to]) {
      const shown = test.querySelector(`output[for="${slider.id}"]`);
      shown.textContent = `${Number(slider.value).toFixed(2)} s`;
      slider.setAttribute("aria-valuetext", shown.textContent);
    }
  }

  function choose() {
    deck.stop();
    draw();
    const { reference, candidate } = players.get(picked.value);
    const shorter = Math.min(Number(reference.dataset.seconds), Number(candidate.dataset.seconds));
    const seconds = Math.floor(100 * shorter) / 100;
    for (const slider of [from, to]) slider.max = seconds;
    [from.value, to.value] = [0, seconds];
    tellPart();
  }

  // --- trials and score ---------------------------------------------------------------------------------------------

  const kept = `abx ${test.dataset.study}`;
  let trial = null;
  let score = recall();  // clip -> {trials, right}
  let resetting = false;

  function bit() {
    return crypto.getRandomValues(new Uint8Array(1))[0] & 1;
  }

  function draw() {
    const order = bit() ? ["candidate", "reference"] : ["reference", "candidate"];
    trial = { a: order[0], b: order[1], x: bit() ? "b" : "a", heard: false, answered: false };
    enable();
  }

  function enable() {
    for (const act of ["answer-a", "answer-b"]) button(act).setAttribute("aria-disabled", String(trial.answered));
    button("next").setAttribute("aria-disabled", String(!trial.answered));
  }

  function recall() {
    try {
      const found = JSON.parse(sessionStorage.getItem(kept));
      const natural = (value) => Number.isInteger(value) && value >= 0;
      const entries = Object.entries(found || {}).filter(
        ([, entry]) => entry && natural(entry.trials) && natural(entry.right) && entry.right <= entry.trials,
      );
      return new Map(entries.map(([name, { trials, right }]) => [name, { trials, right }]));
    } catch {
      return new Map();  // a page that was opened as a file, or in a frame, may have no storage
    }
  }

  function keep() {
    try {
      sessionStorage.setItem(kept, JSON.stringify(Object.fromEntries(score)));
    } catch {
      // The score then lasts until the page is left.
    }
  }

  // P(K >= right) of K ~ Binomial(trials, 1/2), summed in logarithms so that no number of trials underflows.
  function chance(right, trials) {
    if (right <= 0) return 1;
    let log = -trials * Math.LN2;
    let sum = 0;
    for (let k = 0; k <= trials; k++) {
      if (k > 0) log += Math.log((trials - k + 1) / k);
      if (k >= right) sum += Math.exp(log);
    }
    return Math.min(sum, 1);
  }

  function total() {
    const found = { trials: 0, right: 0 };
    for (const entry of score.values()) {
      found.trials += entry.trials;
      found.right += entry.right;
    }
    return { ...found, p: chance(found.right, found.trials) };
  }

  function sentence({ trials, right, p }) {
    if (!trials) return "No trials yet.";
    return `${right} of ${trials} right (${Math.round((100 * right) / trials)} %), p = ${Number(p.toPrecision(3))}.`;
  }

  function tell() {
    const all = total();
    const shown = find("score");
    const meant = all.p < 0.05 ? " Guessing is seldom so often right." : " This is no more than guessing explains.";
    shown.textContent = sentence(all) + (all.trials ? meant : "");
    Object.assign(shown.dataset, { trials: all.trials, right: all.right, p: all.p });
    const lines = [...score].map(([name, entry]) => `${name}: ${entry.right} of ${entry.trials} right`);
    const title = `ABX, ${test.dataset.study}`;
    find("text").value = [title, ...lines, `All: ${sentence(all)} One-sided binomial against guessing.`].join("\n");
  }

  function say(text) {
    find("said").textContent = text;
  }

  function answer(letter) {
    if (trial.answered) return say("This trial is answered: go on to the next one.");
    if (!trial.heard) return say("Listen to X first.");
    const right = letter === trial.x;
    const entry = score.get(picked.value) || { trials: 0, right: 0 };
    score.set(picked.value, { trials: entry.trials + 1, right: entry.right + Number(right) });
    trial.answered = true;
    keep();
    tell();
    enable();
    const [x, a] = [trial.x.toUpperCase(), trial.a];
    say(`${right ? "\u2713 Right" : "\u2717 Wrong"}: X was ${x}, and A was the ${a}. ${sentence(total())}`);
  }

  function next() {
    if (!trial.answered) return say("Answer this trial first.");
    deck.stop();
    draw();
    say(`Trial ${total().trials + 1}: A, B and X are drawn anew.`);
  }

  function reset() {
    const { trials } = total();
    if (trials && !resetting) {
      say(`Press reset once more to forget ${trials} ${trials === 1 ? "trial" : "trials"}.`);
      resetting = true;
      return;
    }
    resetting = false;
    score = new Map();
    keep();
    tell();
    deck.stop();
    draw();
    say("The score is reset.");
  }

  async function copy() {
    const text = find("text");
    try {
      await navigator.clipboard.writeText(text.value);
    } catch {
      text.select();  // without the clipboard's permission
      if (!document.execCommand("copy")) return say("The text is selected: copy it by hand.");
    }
    say("Copied.");
  }

  // --- what the listener does ---------------------------------------------------------------------------------------

  const acts = {
    "play-a": () => play("a"),
    "play-b": () => play("b"),
    "play-x": () => play("x"),
    stop: () => deck.stop(),
    "answer-a": () => answer("a"),
    "answer-b": () => answer("b"),
    next,
    reset,
    copy,
  };

  function act(name) {
    if (name !== "reset") resetting = false;
    acts[name]();
  }

  test.addEventListener("click", (event) => {
    const pressed = event.target.closest("button[data-act]");
    if (pressed) act(pressed.dataset.act);
    // Some browsers do not focus a button that is clicked, and the keys work by focus.
    if (!test.contains(document.activeElement)) test.focus({ preventScroll: true });
  });
  test.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.matches("select, textarea")) return;  // they take letters themselves
    const pressed = test.querySelector(`[aria-keyshortcuts="${CSS.escape(event.key.toUpperCase())}"]`);
    if (!pressed) return;
    event.preventDefault();
    act(pressed.dataset.act);
  });
  document.addEventListener("play", () => deck.stop(), true);  // a player of the page began
  picked.addEventListener("change", choose);
  loop.addEventListener("change", () => deck.fit());
  for (const slider of [from, to]) {
    slider.addEventListener("input", () => {
      const { start, end } = part();
      if (end - start < SHORTEST) {
        if (slider === from) from.value = Math.max(end - SHORTEST, 0);
        else to.value = Math.min(start + SHORTEST, Number(to.max));
      }
      tellPart();
      deck.fit();
    });
  }
  choose();
  tell();
})();
