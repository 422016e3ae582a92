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

  // On a narrow page the row of pages is scrolled: the one that is open shall be seen.
  const shown = new MutationObserver(() => {
    const open = document.querySelector(".header nav [aria-current]");
    if (!open) return;
    shown.disconnect();
    open.parentElement.scrollLeft = open.offsetLeft - open.parentElement.clientWidth / 2;
  });
  shown.observe(document, { childList: true, subtree: true });
})();
