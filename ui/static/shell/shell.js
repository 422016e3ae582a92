// What Gradio's pages need of a script of their own: which thing on a board was clicked, and names for what Gradio
// leaves without one.
"use strict";

(() => {
  const asked = new URLSearchParams(location.search).get("__theme");
  if (asked === "light" || asked === "dark") document.documentElement.dataset.theme = asked;

  // A number after the choice tells two clicks on the same thing apart.
  let clicks = 0;
  window.hfiChoice = "";
  document.addEventListener(
    "click",
    (event) => {
      const chosen = event.target.closest?.("[data-choice]");
      if (chosen) window.hfiChoice = `${chosen.dataset.choice}|${(clicks += 1)}`;
    },
    true,
  );
})();
