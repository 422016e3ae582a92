// What people press and what happens around the page: buttons, menu, side panel, appearance, holding to reveal, network, other tabs.

import { nameOfKey } from "./keys.js";
import { buttonsOf } from "./kinds.js";

const byId = (id) => document.getElementById(id);
export const isWide = () => matchMedia("(min-width: 900px)").matches;

/** Joins the elements of the page to what the page can do; `page` is the one of main.js. */
export class Controls {
  constructor(page) {
    Object.assign(this, { page, storage: page.storage });
    this.buildButtons();
    this.setSide(isWide() && this.storage.getItem("hfi.side") !== "closed", { isKept: false });
    this.#connectButtons();
    this.#connectKeys();
    this.#connectReveal();
    this.#connectPictures();
    this.#connectWorld();
    if (this.storage.getItem("hfi.theme") === null && page.me.theme) document.documentElement.dataset.theme = page.me.theme;
    this.#showTheme();
  }

  /** The answers with the keys of the moment. */
  buildButtons() {
    const { project, bindings, keyboard, view } = this.page;
    const n = project.kind === "ranking" ? (project.rankSize ?? 4) : 1;
    const nameOf = (action) => (action === "finish" ? "Enter" : nameOfKey(bindings.keyFor(action)));
    view.buildAnswers(buttonsOf(project.kind, { n, categories: project.categories }), nameOf, (action) => this.page.act(action));
    for (const hint of document.querySelectorAll("[data-key]")) hint.textContent = nameOf(hint.dataset.key);
    document.body.classList.toggle("has-keys", keyboard.isEnabled);
  }

  #connectButtons() {
    for (const button of document.querySelectorAll("[data-action]")) {
      button.addEventListener("click", (event) => {
        if (event.detail > 0) button.blur();
        if (button.dataset.action !== "theme") this.setMenu(false);
        this.page.act(button.dataset.action);
      });
    }
    byId("menu-button").addEventListener("click", () => this.setMenu(byId("menu").hidden));
    document.addEventListener("pointerdown", (event) => {
      if (!event.target.closest("#menu, #menu-button")) this.setMenu(false);
    });
    byId("side-close").addEventListener("click", () => this.setSide(false));
    byId("unsent").addEventListener("click", () => this.page.showOutbox());
  }

  #connectKeys() {
    const { bindings, keyboard } = this.page;
    byId("keys-enabled").addEventListener("change", (event) => {
      keyboard.isEnabled = event.target.checked;
      this.page.keysChanged();
    });
    byId("keys-reset").addEventListener("click", () => {
      bindings.reset();
      this.page.keysChanged();
    });
  }

  /** Hold a finger or the pointer on the picture, or hold the button. */
  #connectReveal() {
    const { project, reveal, queue } = this.page;
    const [stage, button, once] = [byId("stage"), byId("reveal"), byId("reveal-once")];
    once.checked = reveal.isOnce = this.storage.getItem("hfi.reveal") === "once";
    once.addEventListener("change", () => {
      reveal.isOnce = once.checked;
      reveal.cover();
      this.storage.setItem("hfi.reveal", once.checked ? "once" : "hold");
    });
    for (const element of [stage, button]) {
      element.addEventListener("pointerdown", (event) => {
        if (!project.isSensitive || !queue.current || event.button !== 0) return;
        element.setPointerCapture(event.pointerId);
        reveal.press();
      });
      for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, () => reveal.release());
      element.addEventListener("contextmenu", (event) => project.isSensitive && event.preventDefault());
    }
    button.addEventListener("keydown", (event) => {
      if ((event.key === " " || event.key === "Enter") && !event.repeat && queue.current) reveal.press();
    });
    button.addEventListener("keyup", (event) => event.key === "Enter" && reveal.release());
  }

  /** Pictures that are not covered are chosen by pressing them. */
  #connectPictures() {
    const { project } = this.page;
    byId("stage").addEventListener("click", (event) => {
      const place = event.target.closest(".frame img")?.parentElement.dataset.place;
      if (project.isSensitive || place === undefined) return;
      if (project.kind === "pair") this.page.act(place === "0" ? "left" : "right");
      if (project.kind === "ranking") this.page.act({ digit: Number(place) + 1 });
    });
  }

  #connectWorld() {
    const { page, storage } = this;
    window.addEventListener("online", () => page.tryAgain());
    window.addEventListener("offline", () => page.queue.current ?? page.arrived());
    window.addEventListener("blur", () => page.reveal.cover());
    window.addEventListener("storage", (event) => event.key?.startsWith("hfi.outbox|") && page.outboxChanged(page.outbox.state));
    window.addEventListener("pagehide", () => page.outbox.sendAtLeaving());
    window.addEventListener("beforeunload", (event) => {
      // Only where the browser keeps nothing would leaving lose work.
      if (storage.isMemory && page.outbox.size > 0) event.preventDefault();
    });
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return page.reveal.cover();
      page.outbox.pump();
      page.queue.fill({ isRenewal: true });
    });
    if (storage.isMemory) page.view.toast("This browser keeps nothing for this site: stay on the page until everything is sent.", { seconds: 20 });
  }

  get isMenuOpen() {
    return !byId("menu").hidden;
  }

  setMenu(isOpen) {
    if (isOpen === this.isMenuOpen) return;
    byId("menu").hidden = !isOpen;
    byId("menu-button").setAttribute("aria-expanded", String(isOpen));
    if (isOpen) byId("menu").querySelector("button").focus();
  }

  get isSideOpen() {
    return document.body.dataset.side === "open";
  }

  /** Guideline and last ten: beside the pictures where there is room, else over them. */
  setSide(isOpen, { isKept = true } = {}) {
    const wasOpen = this.isSideOpen;
    document.body.dataset.side = isOpen ? "open" : "closed";
    byId("work").inert = isOpen && !isWide();
    for (const button of document.querySelectorAll('[data-action="guidelines"][aria-expanded]')) button.setAttribute("aria-expanded", String(isOpen));
    if (isKept && isWide()) this.storage.setItem("hfi.side", isOpen ? "open" : "closed");
    if (isOpen && !isWide()) byId("side-close").focus();
    else if (wasOpen && !isWide()) byId("menu-button").focus();
  }

  nextTheme() {
    const order = ["auto", "light", "dark"];
    const next = order[(order.indexOf(document.documentElement.dataset.theme) + 1) % order.length];
    document.documentElement.dataset.theme = next;
    this.storage.setItem("hfi.theme", next);
    this.#showTheme();
    this.page.routes.saveTheme(next).catch(() => {});
  }

  #showTheme() {
    byId("theme-name").textContent = { light: "light", dark: "dark" }[document.documentElement.dataset.theme] ?? "as the system";
  }
}
