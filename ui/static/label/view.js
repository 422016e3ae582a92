// What is on the screen: the pictures, the question, the buttons, the states. No decisions here.

import { describe } from "./kinds.js";

const byId = (id) => document.getElementById(id);

/** Make an element: `make("button", {class: "plain", type: "button"}, "text", otherElement)`. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Run something once the coming frame is on its way to the screen (at once where no frames are drawn). */
export function afterPaint(act) {
  if (document.hidden) setTimeout(act, 0);
  else requestAnimationFrame(() => setTimeout(act, 0));
}

const UNSENT_DELAY_MS = 800;
const FLASH_MS = 200;
const PLACES = { flag: [""], score: [""], pair: ["Left", "Right"] };

export class View {
  constructor() {
    this.stage = byId("stage");
    this.isSensitive = false;
  }

  setProject({ name, kind, isSensitive }, question) {
    Object.assign(this, { kind, isSensitive });
    document.title = `${name} · HFI`;
    byId("project-name").textContent = name;
    byId("question").textContent = question;
    this.stage.dataset.kind = kind;
    document.body.classList.toggle("is-sensitive", isSensitive);
    byId("reveal").hidden = !isSensitive;
  }

  /** Put a slot's pictures on the stage; they are decoded, so the next frame shows them. */
  showItem(slot) {
    byId("state").hidden = true;
    byId("feedback").hidden = true;
    this.stage.hidden = false;
    this.stage.dataset.assignment = slot.assignment.id;
    this.stage.dataset.n = slot.pictures.length;
    this.cover(this.isSensitive);
    this.stage.replaceChildren(...slot.pictures.map((picture, place) => this.#frame(picture, place)));
    const prompt = byId("prompt");
    prompt.hidden = !slot.assignment.prompt;
    prompt.textContent = slot.assignment.prompt ?? "";
    this.setMode("");
    this.setAnswersEnabled(true);
  }

  #frame(picture, place) {
    const isSeveral = this.kind === "pair" || this.kind === "ranking";
    const frame = make("figure", { class: "frame", "data-place": place });
    const word = this.kind === "ranking" ? `Picture ${place + 1}` : (PLACES[this.kind][place] || "Picture to judge");
    picture.alt = isSeveral ? word : "Picture to judge";
    frame.append(picture);
    if (this.kind === "ranking") frame.append(make("figcaption", { class: "place" }, make("span", { class: "number" }, String(place + 1)), make("span", { class: "rank" })));
    return frame;
  }

  cover(isCovered) {
    this.stage.classList.toggle("is-covered", isCovered);
    byId("reveal").setAttribute("aria-pressed", String(!isCovered));
  }

  setMode(text) {
    byId("mode").hidden = !text;
    byId("mode").textContent = text;
  }

  /** Loading, finished, offline, logged out, break, consent ...: instead of the pictures. `actions`: [{label, run, isPrimary, href}]. */
  showState({ name, title, paragraphs = [], actions = [], focus = true }) {
    const state = byId("state");
    const isSame = !state.hidden && state.dataset.name === name;
    this.stage.hidden = true;
    this.stage.replaceChildren();
    delete this.stage.dataset.assignment;
    byId("feedback").hidden = true;
    byId("prompt").hidden = true;
    this.setMode("");
    this.setAnswersEnabled(false);
    state.hidden = false;
    state.dataset.name = name;
    byId("state-title").textContent = title;
    byId("state-text").replaceChildren(...paragraphs.map((text) => (text instanceof Node ? text : make("p", {}, text))));
    byId("state-actions").replaceChildren(...actions.map((action) => this.#stateAction(action)));
    if (!isSame && focus) byId("state-title").focus({ preventScroll: true });
  }

  get stateName() {
    return byId("state").hidden ? "" : byId("state").dataset.name;
  }

  #stateAction({ label, run, href, isPrimary }) {
    const look = isPrimary ? "primary" : "plain";
    if (href !== undefined) return make("a", { class: `button ${look}`, href }, label);
    const button = make("button", { class: look, type: "button" }, label);
    button.addEventListener("click", run);
    return button;
  }

  /** The answers of this project's kind; `press(action)` is called for a click. */
  buildAnswers({ main, extras, other }, nameOf, press) {
    const build = (spec, look) => this.#answerButton(spec, look, nameOf, press);
    byId("main-answers").replaceChildren(...main.map((spec) => build(spec, "answer")));
    byId("extras").replaceChildren(...extras.map((spec) => build(spec, "chip")));
    byId("minor-answers").replaceChildren(...other.map((spec) => build(spec, "minor")));
    byId("extras").hidden = extras.length === 0;
    byId("main-answers").dataset.n = main.length;
    byId("answers").dataset.kind = this.kind;
    const wereEnabled = this.areAnswersEnabled ?? false;
    this.areAnswersEnabled = null;
    this.setAnswersEnabled(wereEnabled);
  }

  #answerButton({ action, digit, label, narrowLabel, stackedLabel }, look, nameOf, press) {
    const name = digit === undefined ? action : `digit-${digit}`;
    const key = digit === undefined ? nameOf(action) : String(digit);
    const words = stackedLabel
      ? [make("span", { class: "unless-stacked" }, label), make("span", { class: "if-stacked" }, stackedLabel)]
      : narrowLabel
        ? [make("span", { class: "unless-narrow" }, label), make("span", { class: "if-narrow" }, narrowLabel)]
        : [make("span", {}, label)];
    // Where the label is the key itself, one of them is enough.
    const hint = label === key ? null : make("kbd", { "aria-hidden": "true" }, key);
    const button = make("button", { class: look, type: "button", "data-answer": name, "aria-keyshortcuts": key }, ...words, hint);
    button.addEventListener("click", (event) => {
      // A click leaves no focus behind that Space would press again; a press by keyboard keeps it.
      if (event.detail > 0) button.blur();
      press(digit === undefined ? action : { digit });
    });
    return button;
  }

  setAnswersEnabled(isEnabled) {
    if (this.areAnswersEnabled === isEnabled) return;
    this.areAnswersEnabled = isEnabled;
    const exempt = "undo";
    for (const button of byId("answers").querySelectorAll("button")) {
      if (button.dataset.answer !== exempt) button.disabled = !isEnabled;
    }
  }

  /** What has been chosen so far: categories of a yes, places of a ranking. */
  showDraft(draft, { categories, ranks }) {
    const answers = byId("answers");
    if (this.kind === "flag") {
      answers.classList.toggle("is-choosing", draft.isYes);
      for (const [index, category] of categories.slice(0, 9).entries()) {
        const isChosen = draft.categories.includes(category);
        answers.querySelector(`[data-answer="digit-${index + 1}"]`)?.setAttribute("aria-pressed", String(isChosen));
      }
      this.setMode(draft.isYes ? "Yes. Which kinds? Choose any, then Yes again." : this.modeBefore ?? "");
    }
    if (this.kind === "ranking") this.#showRanks(draft, ranks);
  }

  #showRanks(draft, ranks) {
    byId("answers").querySelector('[data-answer="tie"]')?.setAttribute("aria-pressed", String(draft.isTie));
    for (const [place, rank] of ranks.entries()) {
      const frame = this.stage.querySelector(`[data-place="${place}"]`);
      frame?.classList.toggle("is-ranked", rank > 0);
      const label = frame?.querySelector(".rank");
      if (label) label.textContent = rank > 0 ? ordinal(rank) : "";
      const button = byId("answers").querySelector(`[data-answer="digit-${place + 1}"]`);
      if (button) button.disabled = rank > 0;
    }
  }

  /** The answer given before, when an item is shown again. */
  markPrevious(previous) {
    for (const button of byId("answers").querySelectorAll("[data-previous]")) delete button.dataset.previous;
    this.modeBefore = "";
    if (!previous) return;
    const button = byId("answers").querySelector(`[data-answer="${buttonOf(previous)}"]`);
    if (button) button.dataset.previous = "true";
    this.modeBefore = `You said: ${describe(previous)}`;
    this.setMode(this.modeBefore);
  }

  setProgress({ mine, project, total }) {
    const share = total > 0 ? Math.round((100 * project) / total) : 0;
    const whole = total > 0 ? make("span", { class: "unless-narrow" }, ` · project ${share} %`) : null;
    byId("progress").replaceChildren(...[`${mine} by you`, whole].filter(Boolean));
    byId("bar-mine").style.setProperty("--share", `${share}%`);
  }

  setExposure(text) {
    byId("exposure").hidden = !text;
    byId("exposure").textContent = text;
  }

  setUnsent(n, nRefused, state) {
    const texts = { logged_out: "log in", forbidden: "refused", other_account: "other account", waiting: "no connection" };
    const why = n > 0 && texts[state] ? ` · ${texts[state]}` : "";
    const text = nRefused > 0 ? `${n} unsent · ${nRefused} refused` : n > 0 ? `${n} unsent${why}` : "All saved";
    const badge = byId("unsent");
    badge.dataset.n = n;
    badge.dataset.state = nRefused > 0 || why ? "waiting" : n > 0 ? "sending" : "saved";
    clearTimeout(this.unsentTimer);
    // What is on its way is there in a moment: no flicker with every answer.
    const isPassing = badge.dataset.state === "sending" && n < 4;
    this.unsentTimer = setTimeout(() => {
      badge.dataset.look = badge.dataset.state;
      if (byId("unsent-text").textContent !== text) byId("unsent-text").textContent = text;
    }, isPassing ? UNSENT_DELAY_MS : 0);
  }

  /**
   * Show on the button which answer was given: a ring for a moment. It neither fades (every step of that would be a frame
   * drawn while the next key may come) nor changes the ground under the words, which may be part of the next answer already.
   */
  flash(answer) {
    const button = byId("answers").querySelector(`[data-answer="${buttonOf(answer)}"]`);
    this.flashed?.removeAttribute("data-flashed");
    clearTimeout(this.flashTimer);
    this.flashed = button;
    button?.setAttribute("data-flashed", "");
    this.flashTimer = setTimeout(() => button?.removeAttribute("data-flashed"), FLASH_MS);
  }

  showFeedback({ isRight, title, text }, onNext) {
    const panel = byId("feedback");
    panel.hidden = false;
    panel.dataset.right = isRight === null ? "" : String(isRight);
    byId("feedback-title").textContent = title;
    byId("feedback-text").textContent = text;
    byId("feedback-next").onclick = onNext;
    this.setAnswersEnabled(false);
  }

  hideFeedback() {
    byId("feedback").hidden = true;
  }

  toast(text, { label = "", run = null, seconds = 6 } = {}) {
    clearTimeout(this.toastTimer);
    byId("toast").hidden = false;
    byId("toast-text").textContent = text;
    const button = byId("toast-action");
    button.hidden = !label;
    button.textContent = label;
    button.onclick = () => {
      this.hideToast();
      run?.();
    };
    this.toastTimer = setTimeout(() => this.hideToast(), seconds * 1000);
    this.announce(text);
  }

  hideToast() {
    byId("toast").hidden = true;
  }

  /** Say something to screen readers, after the picture has been painted. */
  announce(text) {
    clearTimeout(this.liveTimer);
    this.liveTimer = setTimeout(() => {
      byId("live").textContent = text;
    }, 60);
  }
}

/** The name of the button of an answer. */
const buttonOf = ({ answer, score }) => (score ? `digit-${score}` : ({ first: "left", second: "right" }[answer] ?? answer));

const ordinal = (rank) => `${rank}${{ 1: "st", 2: "nd", 3: "rd" }[rank] ?? "th"}`;
