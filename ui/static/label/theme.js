// Runs before the first paint, so that a chosen appearance never flashes the other one.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("hfi.theme");
  } catch {
    // A browser that keeps nothing follows the system.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
