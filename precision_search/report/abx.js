// ABX: plays A, B and X of a blind test and keeps the score. What X is, only this closure knows.
(() => {
  "use strict";
  const test = document.getElementById("abx-test");
  if (!test) return;
  const FADE = 0.008;  // seconds; a switch without it clicks
  const SHORTEST = 0.1;  // seconds of the part that is heard, at least
  const find = (id) => document.getElementById(`abx-${id}`);
  const button = (act) => test.querySelector(`[data-act="${act}"]`);
  const [picked, from, to, loop, position] = ["clip", "from", "to", "loop", "position"].map(find);

  // The players of the section above hold the only copy of each sound.
  const players = new Map();
  for (const player of document.querySelectorAll("audio[data-clip][data-side]")) {
    const { clip, side } = player.dataset;
    players.set(clip, { ...players.get(clip), [side]: player });
  }
  const whole = ({ reference, candidate }) =>
    reference && candidate && reference.dataset.rate === candidate.dataset.rate;
  const clips = [...players].filter(([, sides]) => whole(sides)).map(([name]) => name);
  const Context = window.AudioContext;
  if (!Context || !window.crypto) return;  // the page says what is needed
  if (!clips.length) {
    find("without").textContent = "There is no clip of which both sides can be played.";
    return;
  }
  find("without").hidden = true;
  for (const name of clips) picked.add(new Option(name, name));
  test.hidden = false;

  // --- the sounds ---------------------------------------------------------------------------------------------------

  let context = null;
  let contextRate = 0;  // of the clips it is for
  const loaded = new Map();  // clip -> {seconds, reference, candidate}, a side being {buffer, gain}

  function bytesOf(player) {
    const text = atob(player.src.slice(player.src.indexOf(",") + 1));
    return Uint8Array.from(text, (letter) => letter.charCodeAt(0)).buffer;
  }

  function contextAt(rate) {
    // At the clip's own rate nothing is resampled on the way into the buffers.
    if (context && contextRate === rate) return context;
    if (context) context.close();
    loaded.clear();
    contextRate = rate;
    try {
      context = new Context({ sampleRate: rate });
    } catch {
      context = new Context();
    }
    return context;
  }

  function powerOf(buffer, frames) {
    const samples = buffer.getChannelData(0);
    let sum = 0;
    for (let index = 0; index < frames; index++) sum += samples[index] * samples[index];
    return sum / Math.max(frames, 1);
  }

  async function load(name) {
    const sides = players.get(name);
    const at = contextAt(Number(sides.reference.dataset.rate));
    if (loaded.has(name)) return loaded.get(name);
    const [reference, candidate] = await Promise.all([
      at.decodeAudioData(bytesOf(sides.reference)),
      at.decodeAudioData(bytesOf(sides.candidate)),
    ]);
    const frames = Math.min(reference.length, candidate.length);
    const powers = [powerOf(reference, frames), powerOf(candidate, frames)];
    const least = Math.min(...powers);
    const gains = powers.map((power) => (power > 0 && least > 0 ? Math.sqrt(least / power) : 1));
    const sound = {
      seconds: frames / at.sampleRate,
      reference: { buffer: reference, gain: gains[0] },
      candidate: { buffer: candidate, gain: gains[1] },
    };
    loaded.set(name, sound);
    return sound;
  }

  // --- playing ------------------------------------------------------------------------------------------------------

  let playing = null;  // {act, source, fader, sound, offset, since}
  let asked = 0;  // counts presses: a sound that was still being decoded at a later press is not played

  function reached() {
    if (!playing) return Number(from.value);
    const heard = playing.offset + Math.max(context.currentTime - playing.since, 0);
    const [start, end] = [Number(from.value), Number(to.value)];
    if (heard < end) return heard;
    return loop.checked ? start + ((heard - start) % (end - start)) : end;
  }

  function silence() {
    if (!playing) return;
    const { source, fader } = playing;
    playing = null;
    source.onended = null;
    fader.gain.cancelScheduledValues(context.currentTime);
    fader.gain.setValueAtTime(fader.gain.value, context.currentTime);
    fader.gain.linearRampToValueAtTime(0, context.currentTime + FADE);
    source.stop(context.currentTime + FADE);
  }

  function stop() {
    asked += 1;
    silence();
    press(null);
  }

  function press(act) {
    for (const key of ["play-a", "play-b", "play-x"]) button(key).setAttribute("aria-pressed", String(key === act));
    if (!act) position.value = 0;
  }

  function begin(act, sound, side, offset) {
    silence();
    const source = new AudioBufferSourceNode(context, { buffer: sound[side].buffer });
    const fader = new GainNode(context, { gain: 0 });
    source.connect(fader).connect(context.destination);
    const [start, end] = [Number(from.value), Number(to.value)];
    const since = context.currentTime;
    fader.gain.setValueAtTime(0, since);
    fader.gain.linearRampToValueAtTime(sound[side].gain, since + FADE);
    if (loop.checked) {
      source.loop = true;
      source.loopStart = start;
      source.loopEnd = end;
      source.start(since, offset);
    } else {
      source.start(since, offset, Math.max(end - offset, 0));
    }
    source.onended = stop;
    playing = { act, source, fader, sound, side, offset, since };
    press(act);
    requestAnimationFrame(follow);
  }

  function follow() {
    if (!playing) return;
    position.value = reached() / playing.sound.seconds;
    requestAnimationFrame(follow);
  }

  async function play(act) {
    const name = picked.value;
    const letter = act.slice(-1);
    const mine = (asked += 1);
    let sound;
    try {
      sound = await load(name);
      if (context.state !== "running") await context.resume();
    } catch (fault) {
      say(`${name} cannot be played: ${fault.message}`);
      return;
    }
    if (mine !== asked) return;
    for (const player of document.querySelectorAll("audio")) player.pause();
    // A switch goes on where the other was; the same button once more begins the part again.
    const offset = playing && playing.act !== act ? reached() : Number(from.value);
    const side = letter === "x" ? trial[trial.x] : trial[letter];
    if (letter === "x") trial.heard = true;
    begin(act, sound, side, offset);
  }

  function fit() {
    // A changed part or loop takes effect at once.
    if (playing) begin(playing.act, playing.sound, playing.side, within(reached()));
  }

  function within(place) {
    return place < Number(from.value) || place >= Number(to.value) ? Number(from.value) : place;
  }

  // --- trials and score ---------------------------------------------------------------------------------------------

  const kept = `abx ${test.dataset.study}`;
  let trial = null;
  let score = recall();
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
    stop();
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
    stop();
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
    "play-a": () => play("play-a"),
    "play-b": () => play("play-b"),
    "play-x": () => play("play-x"),
    stop,
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
  document.addEventListener("play", stop, true);

  function bounds() {
    for (const slider of [from, to]) {
      const shown = test.querySelector(`output[for="${slider.id}"]`);
      shown.textContent = `${Number(slider.value).toFixed(2)} s`;
      slider.setAttribute("aria-valuetext", shown.textContent);
    }
  }

  function choose() {
    stop();
    draw();
    const { reference, candidate } = players.get(picked.value);
    const shorter = Math.min(Number(reference.dataset.seconds), Number(candidate.dataset.seconds));
    const seconds = Math.floor(100 * shorter) / 100;
    for (const slider of [from, to]) slider.max = seconds;
    [from.value, to.value] = [0, seconds];
    bounds();
  }

  picked.addEventListener("change", choose);
  loop.addEventListener("change", fit);
  for (const slider of [from, to]) {
    slider.addEventListener("input", () => {
      const [start, end] = [Number(from.value), Number(to.value)];
      if (end - start < SHORTEST) {
        if (slider === from) from.value = Math.max(end - SHORTEST, 0);
        else to.value = Math.min(start + SHORTEST, Number(to.max));
      }
      bounds();
      fit();
    });
  }
  choose();
  tell();
})();
