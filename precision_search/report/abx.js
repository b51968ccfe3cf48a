// Deck: plays one of the two sounds of a clip at a time, and switches between them without losing the position.
const Deck = (() => {
  "use strict";
  const FADE = 0.008;  // seconds; a switch without it clicks

  // The players of the page hold the only copy of each sound, as data URIs.
  function bytesOf(player) {
    const text = atob(player.src.slice(player.src.indexOf(",") + 1));
    return Uint8Array.from(text, (letter) => letter.charCodeAt(0)).buffer;
  }

  function powerOf(buffer, frames) {
    const samples = buffer.getChannelData(0);
    let sum = 0;
    for (let index = 0; index < frames; index++) sum += samples[index] * samples[index];
    return sum / Math.max(frames, 1);
  }

  return class {
    // clips: name -> {reference, candidate}, the players of both sides.
    // part: tells {start, end, loop} of what is to be heard, in seconds.
    // changed: called with the name of the button whose sound plays now, or null.
    constructor(clips, part, changed) {
      this.clips = clips;
      this.part = part;
      this.changed = changed;
      this.context = null;
      this.rate = 0;  // of the clips that the context is for
      this.loaded = new Map();  // clip -> {seconds, reference, candidate}, a side being {buffer, gain}
      this.playing = null;
      this.asked = 0;  // counts presses: a sound that was still being decoded at a later press is not played
    }

    contextAt(rate) {
      // At the clip's own rate nothing is resampled on the way into the buffers.
      if (this.context && this.rate === rate) return this.context;
      if (this.context) this.context.close();
      this.loaded.clear();
      this.rate = rate;
      try {
        this.context = new AudioContext({ sampleRate: rate });
      } catch {
        this.context = new AudioContext();
      }
      return this.context;
    }

    async load(name) {
      const sides = this.clips.get(name);
      const context = this.contextAt(Number(sides.reference.dataset.rate));
      if (this.loaded.has(name)) return this.loaded.get(name);
      const [reference, candidate] = await Promise.all([
        context.decodeAudioData(bytesOf(sides.reference)),
        context.decodeAudioData(bytesOf(sides.candidate)),
      ]);
      const frames = Math.min(reference.length, candidate.length);
      const powers = [powerOf(reference, frames), powerOf(candidate, frames)];
      const least = Math.min(...powers);
      const gains = powers.map((power) => (least > 0 ? Math.sqrt(least / power) : 1));
      const sound = {
        seconds: frames / context.sampleRate,
        reference: { buffer: reference, gain: gains[0] },
        candidate: { buffer: candidate, gain: gains[1] },
      };
      this.loaded.set(name, sound);
      return sound;
    }

    // Where in the clip it is, in seconds.
    reached() {
      const { start, end, loop } = this.part();
      if (!this.playing) return start;
      const heard = this.playing.offset + Math.max(this.context.currentTime - this.playing.since, 0);
      if (heard < end) return heard;
      return loop ? start + ((heard - start) % (end - start)) : end;
    }

    // Of the whole clip; 0 while nothing plays.
    share() {
      return this.playing ? this.reached() / this.playing.sound.seconds : 0;
    }

    // Play a side under the name of its button. A switch goes on where the other was; the same button begins again.
    // True once it plays; false where another button was pressed meanwhile.
    async play(name, side, act) {
      const mine = (this.asked += 1);
      const sound = await this.load(name);
      if (this.context.state !== "running") await this.context.resume();
      if (mine !== this.asked) return false;
      this.begin(act, sound, side, this.playing && this.playing.act !== act ? this.reached() : this.part().start);
      return true;
    }

    begin(act, sound, side, offset) {
      this.silence();
      const { start, end, loop } = this.part();
      const { buffer, gain } = sound[side];
      const source = new AudioBufferSourceNode(this.context, { buffer, loop, loopStart: start, loopEnd: end });
      const fader = new GainNode(this.context, { gain: 0 });
      source.connect(fader).connect(this.context.destination);
      const since = this.context.currentTime;
      fader.gain.setValueAtTime(0, since);
      fader.gain.linearRampToValueAtTime(gain, since + FADE);
      if (loop) source.start(since, offset);
      else source.start(since, offset, Math.max(end - offset, 0));
      source.onended = () => this.stop();
      this.playing = { act, source, fader, sound, side, offset, since };
      this.changed(act);
    }

    // A changed part takes effect at once.
    fit() {
      if (!this.playing) return;
      const { act, sound, side } = this.playing;
      const [{ start, end }, reached] = [this.part(), this.reached()];
      this.begin(act, sound, side, reached < start || reached >= end ? start : reached);
    }

    silence() {
      if (!this.playing) return;
      const { source, fader } = this.playing;
      const now = this.context.currentTime;
      this.playing = null;
      source.onended = null;
      fader.gain.cancelScheduledValues(now);
      fader.gain.setValueAtTime(fader.gain.value, now);
      fader.gain.linearRampToValueAtTime(0, now + FADE);
      source.stop(now + FADE);
    }

    stop() {
      this.asked += 1;
      this.silence();
      this.changed(null);
    }
  };
})();
