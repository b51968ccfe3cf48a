// Players: one sound at a time, so that reference and candidate are heard in turn.
(() => {
  "use strict";
  document.addEventListener("play", (event) => {
    for (const player of document.querySelectorAll("audio")) {
      if (player !== event.target) player.pause();
    }
  }, true);
})();
