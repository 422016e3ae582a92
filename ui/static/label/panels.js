// Beside the pictures: guideline, last ten, keys, limits, and the questions asked in between.

import { describe } from "./kinds.js";
import { actionsOf, keyOf, nameOfKey } from "./keys.js";
import { make } from "./view.js";

const byId = (id) => document.getElementById(id);

const ALLOWED = new Set(
  ("P H1 H2 H3 H4 H5 H6 UL OL LI EM STRONG CODE PRE BLOCKQUOTE HR BR A TABLE THEAD TBODY TR TH TD DL DT DD S DEL " +
    "SUP SUB").split(" "),
);

/**
 * The guideline as elements, of which only harmless ones are kept: no attributes but a link's address, no pictures from elsewhere.
 * @param {string} html as the server made it from Markdown
 */
export function cleanGuideline(html) {
  const parsed = new DOMParser().parseFromString(html, "text/html");
  const clean = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return document.createTextNode(node.data);
    if (node.nodeType !== Node.ELEMENT_NODE) return document.createTextNode("");
    if (["SCRIPT", "STYLE", "IFRAME", "OBJECT", "TEMPLATE"].includes(node.tagName)) return document.createTextNode("");
    const children = [...node.childNodes].map(clean);
    if (!ALLOWED.has(node.tagName)) {
      const fragment = document.createDocumentFragment();
      fragment.append(...children);
      return fragment;
    }
    // The panel has a heading of its own: the guideline's are below it.
    const tag = /^H[12]$/.test(node.tagName) ? "H3" : node.tagName;
    const element = make(tag, {}, ...children);
    if (node.tagName === "A" && /^https?:\/\//i.test(node.getAttribute("href") ?? "")) {
      element.href = node.getAttribute("href");
      element.target = "_blank";
      element.rel = "noreferrer noopener";
    }
    return element;
  };
  return [...parsed.body.childNodes].map(clean);
}

/** The question of a guideline: its first heading or, without one, its first sentence. */
export function questionOf(html, kind) {
  const body = new DOMParser().parseFromString(html, "text/html").body;
  const heading = body.querySelector("h1, h2, h3");
  const text = (heading ?? body.querySelector("p") ?? body).textContent.trim();
  const sentence = heading ? text : (text.match(/^.*?[.?!](?=\s|$)/s)?.[0] ?? text);
  const usual = { flag: "Does the picture show it?", score: "How strongly, from 1 to 5?", pair: "Which is better?", ranking: "Which is best, second, third …?" };
  return sentence && sentence.length <= 120 ? sentence : usual[kind];
}

export function showGuideline({ version, html }) {
  byId("guideline-version").textContent = `version ${version}`;
  byId("guideline").replaceChildren(...cleanGuideline(html));
}

/** The last ten judgments, newest first; `edit(entry)` opens one again. Rows that are there already stay as they are. */
export function showLatest(entries, edit) {
  byId("latest-empty").hidden = entries.length > 0;
  const rows = new Map([...byId("latest").children].map((row) => [row.dataset.of, row]));
  byId("latest").replaceChildren(...entries.map((entry) => rows.get(entry.uuid) ?? latestRow(entry, edit)));
}

/** The small picture or, while the network is away, the large one, which is still there from when it was judged. */
function thumbOf({ sha256, url }) {
  const thumb = make("img", { src: `/thumb/${sha256}`, alt: "", width: 44, height: 44, loading: "lazy" });
  thumb.addEventListener("error", () => (thumb.src = url), { once: true });
  return thumb;
}

function latestRow(entry, edit) {
  const words = describe(entry.answer);
  const thumbs = entry.assignment.images.slice(0, 4).map(thumbOf);
  const button = make(
    "button",
    { class: "latest-row", type: "button", "data-uuid": entry.uuid, "aria-label": `Change: ${words}` },
    make("span", { class: "thumbs", "data-n": thumbs.length }, ...thumbs),
    make("span", { class: "latest-words" }, words),
    make("span", { class: "latest-edit", "aria-hidden": "true" }, "Change"),
  );
  button.addEventListener("click", () => edit(entry));
  return make("li", { "data-of": entry.uuid }, button);
}

const ACTION_WORDS = {
  yes: "Yes, it shows it",
  no: "No, it does not",
  left: "The left (upper) one is better",
  right: "The right (lower) one is better",
  both_fine: "Both are fine",
  both_bad: "Both are bad",
  tie: "Equal",
  none: "None is good",
  unsure: "Unsure",
  skip: "Skip, with a reason",
  hide_kind: "Don't show me this kind",
  broken: "The picture is broken",
  undo: "Undo (also Backspace)",
  reveal: "Reveal while held",
  guidelines: "Guideline and last ten",
  break: "Take a break",
  legend: "These keys",
};
const DIGITS = {
  flag: ["1 – 9", "Yes, of this kind"],
  score: ["1 – 5", "The score"],
  pair: null,
  ranking: ["1 – 9", "The best, the second best …; Enter: the rest are equal"],
};

/** The legend, each row a button that waits for a new key. `onRebind()` after a change. */
export function buildLegend(bindings, onRebind) {
  const rows = actionsOf(bindings.kind).map((action) => legendRow(action, bindings, onRebind));
  const digits = DIGITS[bindings.kind];
  if (digits) rows.unshift(make("tr", {}, make("th", { scope: "row" }, digits[1]), make("td", {}, make("kbd", {}, digits[0]))));
  byId("legend-rows").replaceChildren(...rows);
}

function legendRow(action, bindings, onRebind) {
  const words = bindings.kind === "ranking" && action === "tie" ? "The next one ties with the last" : ACTION_WORDS[action];
  const key = make("kbd", {}, nameOfKey(bindings.keyFor(action)));
  const button = make("button", { type: "button", class: "rebind", "data-rebind": action, "aria-label": `${words}: ${key.textContent}. Change the key` }, key);
  button.addEventListener("click", () => waitForKey(button, action, bindings, onRebind));
  return make("tr", {}, make("th", { scope: "row" }, words), make("td", {}, button));
}

function waitForKey(button, action, bindings, onRebind) {
  const message = byId("legend-message");
  button.classList.add("is-waiting");
  message.textContent = `Press the new key for “${ACTION_WORDS[action]}”. Escape leaves it as it is.`;
  const stop = () => {
    button.classList.remove("is-waiting");
    button.removeEventListener("keydown", listen);
    button.removeEventListener("blur", stop);
  };
  const listen = (event) => {
    if (["Shift", "Control", "Alt", "Meta"].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    stop();
    message.textContent = event.key === "Escape" ? "" : bindings.rebind(action, keyOf(event));
    if (event.key !== "Escape" && !message.textContent) {
      message.textContent = `“${ACTION_WORDS[action]}” is now ${nameOfKey(bindings.keyFor(action))}.`;
      onRebind();
      byId("legend-rows").querySelector(`[data-rebind="${action}"]`)?.focus();
    }
  };
  button.addEventListener("keydown", listen);
  button.addEventListener("blur", stop);
  button.focus();
}

export const SKIP_REASONS = ["I can't tell", "The guideline doesn't say", "Too upsetting", "I know this picture", "Something technical"];

const unanswered = new WeakMap(); // dialog -> ends the question it stands for

/**
 * Open a dialog; resolves to its return value. Browsers announce that a dialog was closed a little later: by then somebody quick
 * may have opened it again, so the question before ends here, and an announcement that comes while it is open is an old one.
 */
function ask(dialog) {
  unanswered.get(dialog)?.("");
  return new Promise((resolve) => {
    const listen = () => dialog.open || end(dialog.returnValue);
    const end = (value) => {
      dialog.removeEventListener("close", listen);
      unanswered.delete(dialog);
      resolve(value);
    };
    unanswered.set(dialog, end);
    dialog.addEventListener("close", listen);
    dialog.returnValue = "";
    dialog.showModal();
  });
}

/** Close a dialog with an answer, known at once: whoever presses the next key before the browser announces it loses nothing. */
function answerWith(dialog, value) {
  dialog.close(value);
  unanswered.get(dialog)?.(value);
}

/** Ask why an item is skipped; resolves to the reason, or null. */
export async function askReason() {
  const dialog = byId("skip-dialog");
  const listening = new AbortController();
  const buttons = SKIP_REASONS.map((reason, index) => {
    const button = make("button", { type: "button", class: "choice" }, make("span", {}, reason), make("kbd", { "aria-hidden": "true" }, String(index + 1)));
    button.addEventListener("click", () => answerWith(dialog, reason));
    return button;
  });
  byId("skip-reasons").replaceChildren(...buttons);
  byId("skip-text").value = "";
  const press = (event) => {
    if (event.target.id === "skip-text" || event.ctrlKey || event.altKey || event.metaKey) return;
    const reason = SKIP_REASONS[Number(event.key) - 1];
    if (!reason) return;
    event.preventDefault();
    answerWith(dialog, reason);
  };
  const submit = (event) => {
    event.preventDefault();
    answerWith(dialog, byId("skip-text").value.trim() || "No reason given");
  };
  dialog.addEventListener("keydown", press, { signal: listening.signal });
  byId("skip-form").addEventListener("submit", submit, { signal: listening.signal });
  const answer = ask(dialog);
  buttons[0].focus();
  try {
    return (await answer) || null;
  } finally {
    listening.abort();
  }
}

/** Open a dialog whose buttons answer by id; resolves to the id pressed, or "". */
export async function askDialog(dialogId, buttonIds) {
  const dialog = byId(dialogId);
  for (const id of buttonIds) byId(id).onclick = () => answerWith(dialog, id);
  const pressed = await ask(dialog);
  return buttonIds.includes(pressed) ? pressed : "";
}

/** Choose the kinds of content one does not want; resolves to them, or null. */
export async function askLimits(categories, chosen) {
  const all = [...new Set([...categories, ...chosen])];
  const rows = all.map((category) => make("label", { class: "check" }, make("input", { type: "checkbox", value: category, checked: chosen.includes(category) }), ` ${category}`));
  byId("limits-rows").replaceChildren(...(rows.length > 0 ? rows : [make("p", { class: "quiet" }, "This project names no kinds of content. Use “Not this kind” on a picture.")]));
  byId("limits-save").hidden = rows.length === 0;
  const pressed = await askDialog("limits-dialog", ["limits-save"]);
  if (!pressed) return null;
  return [...byId("limits-rows").querySelectorAll("input:checked")].map((box) => box.value);
}

/** What is unsent, and why; resolves to "outbox-retry", "outbox-drop" or "". */
export function askOutbox(entries, state) {
  const refused = entries.filter((entry) => entry.refused);
  const n = entries.length;
  const why = {
    logged_out: "You are logged out: they are sent once you log in again.",
    other_account: "Another account is logged in on this browser: they are sent once you log in as yourself again.",
    forbidden: "The server does not accept them at the moment. They are kept.",
    waiting: "The server can't be reached. They are sent as soon as it can.",
  }[state];
  const kept = n === 1 ? "1 act is kept in this browser." : `${n} acts are kept in this browser.`;
  byId("outbox-text").textContent = n === 0 ? "Everything is stored." : `${kept} ${why ?? "They are being sent."}`;
  byId("outbox-refused").replaceChildren(...refused.map((entry) => make("li", {}, `${entry.judgment ? describe(entry.judgment) : entry.op}: ${entry.refused}`)));
  byId("outbox-drop").hidden = refused.length === 0;
  return askDialog("outbox-dialog", ["outbox-retry", "outbox-drop"]);
}
