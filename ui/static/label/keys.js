// Which key means what: bindings that can be changed, and one listener that knows when to keep quiet.

/** The usual keys. Digits, Enter and Escape are fixed; Backspace always undoes. */
export const USUAL_KEYS = Object.freeze({
  yes: "j",
  no: "f",
  left: "f",
  right: "j",
  both_fine: "d",
  both_bad: "k",
  tie: "t",
  none: "n",
  unsure: "u",
  skip: "s",
  hide_kind: "x",
  broken: "i",
  undo: "z",
  reveal: " ",
  guidelines: "g",
  break: "b",
  legend: "?",
});

/** The actions that a kind of project has beside those that all have. */
const OF_KIND = {
  flag: ["yes", "no"],
  score: [],
  pair: ["left", "right", "both_fine", "both_bad", "tie"],
  ranking: ["tie", "none"],
};
const OF_ALL = ["unsure", "skip", "broken", "hide_kind", "undo", "reveal", "guidelines", "break", "legend"];
const FIXED = new Set(["enter", "escape", "tab", "backspace"]);
const NAMES = { " ": "Space", arrowleft: "←", arrowright: "→", arrowup: "↑", arrowdown: "↓", enter: "Enter" };

/** The actions of a kind, in the order of the legend. */
export const actionsOf = (kind) => [...OF_KIND[kind], ...OF_ALL];

/** A key as people call it. */
export const nameOfKey = (key) => NAMES[key] ?? key.toUpperCase();

/** The key of an event, in one spelling. */
export const keyOf = (event) => event.key.toLowerCase();

/** Which key does what, for one kind of project. */
export class Bindings {
  constructor(kind, changed = {}) {
    this.kind = kind;
    this.changed = { ...changed };
  }

  keyFor(action) {
    return this.changed[action] ?? USUAL_KEYS[action];
  }

  /** The action of a key: a name, `{digit}`, or null. */
  find(key) {
    if (/^[1-9]$/.test(key)) return { digit: Number(key) };
    if (key === "backspace") return "undo";
    if (key === "enter") return "finish";
    if (key === "escape") return "cancel";
    return actionsOf(this.kind).find((action) => this.keyFor(action) === key) ?? null;
  }

  /** Give an action another key; whoever had that key gets the old one in exchange. Returns why not, or "". */
  rebind(action, key) {
    if (FIXED.has(key) || /^[0-9]$/.test(key)) return `${nameOfKey(key)} has a fixed meaning. Choose another key.`;
    if ([...key].length > 1 && !NAMES[key]) return "That key can't be used alone. Choose a letter, a sign or an arrow.";
    const holder = actionsOf(this.kind).find((other) => other !== action && this.keyFor(other) === key);
    if (holder) this.changed[holder] = this.keyFor(action);
    this.changed[action] = key;
    return "";
  }

  reset() {
    this.changed = {};
  }
}

function isTyping(target) {
  return target instanceof HTMLElement && target.matches("input:not([type=checkbox]), textarea, select, [contenteditable]");
}

/** Whether Space or Enter is meant for the control that somebody tabbed to. */
function isForControl(event) {
  const isPress = event.key === " " || event.key === "Enter";
  return isPress && event.target instanceof HTMLElement && event.target.matches("button:focus-visible, a:focus-visible, summary, input");
}

/**
 * Listen to keys: `onAction(action, event)` on press, `onRelease(action)` when the key goes up.
 * Quiet while typing, with Ctrl, Alt or Meta, on repeat, in an open dialog, and when switched off.
 */
export class Keyboard {
  constructor(bindings, { onAction, onRelease }) {
    Object.assign(this, { bindings, onAction, onRelease, isEnabled: true });
    document.addEventListener("keydown", (event) => this.#press(event), { capture: true });
    document.addEventListener("keyup", (event) => this.#release(event), { capture: true });
  }

  #press(event) {
    if (event.isComposing || event.ctrlKey || event.altKey || event.metaKey || isTyping(event.target)) return;
    if (document.querySelector("dialog[open]") || isForControl(event)) return;
    const action = this.bindings.find(keyOf(event));
    if (action === null || (!this.isEnabled && action !== "cancel")) return;
    if (action === "reveal" || keyOf(event) === "backspace") event.preventDefault();
    if (event.repeat) return;
    this.onAction(action, event);
  }

  #release(event) {
    if (this.bindings.find(keyOf(event)) === "reveal") this.onRelease("reveal");
  }
}
