// One person judging one item after the other: answers, undo, changing an earlier answer, the training round.

import { describe, kinds, otherAnswer, ranksOf } from "./kinds.js";
import { askReason } from "./panels.js";
import { loadPictures } from "./prefetch.js";
import { newUuid } from "./tabs.js";
import { afterPaint } from "./view.js";

const FEEDBACK_PATIENCE_MS = 5000;
const QUICK_MS = 300;
const N_QUICK = 8;

/**
 * `latest` is what this person judged, newest first: {uuid, assignment, pictures?, answer, supersedes?, before?}. Undo takes the first.
 * `onChange()`: the list or the progress has changed; `onEmpty()`: there is nothing to show; `onHideKind(uuid)`: a kind was refused.
 */
export class Judging {
  constructor({ project, view, queue, outbox, reveal, exposure, onChange, onEmpty, onHideKind }) {
    Object.assign(this, { project, view, queue, outbox, reveal, exposure, onChange, onEmpty, onHideKind });
    this.kind = kinds[project.kind];
    this.latest = [];
    this.quick = [];
    this.draft = this.kind.start();
    this.waiting = null; // the training answer whose feedback is awaited or shown
  }

  get current() {
    return this.queue.current;
  }

  get context() {
    return { categories: this.project.categories, n: this.current?.assignment.images.length ?? 0 };
  }

  /** Show the next item, if its pictures are there. */
  next() {
    const slot = this.queue.take();
    if (slot) this.show(slot);
    else {
      this.queue.current = null;
      this.onEmpty();
    }
  }

  show(slot) {
    this.queue.current = slot;
    this.draft = this.kind.start();
    this.reveal.reset();
    this.view.showItem(slot);
    this.view.markPrevious(slot.previous ?? null);
    this.#showDraft();
    this.shownAt = performance.now();
  }

  #showDraft() {
    this.view.showDraft(this.draft, { categories: this.project.categories, ranks: ranksOf({ chosen: [], ...this.draft }, this.context.n) });
  }

  /** A key or a button: an action's name, or {digit}. */
  press(action) {
    if (this.waiting) {
      if (["finish", "yes", "no", "left", "right"].includes(action)) this.goOn();
      return;
    }
    if (action === "undo") return this.#back();
    if (action === "cancel") return void this.cancelEdit();
    if (!this.current) return;
    if (action === "skip") return this.#skip();
    if (action === "unsure" || action === "broken" || action === "hide_kind") return this.answer(otherAnswer(action));
    const answer = this.kind.press(this.draft, action, this.context);
    if (answer) this.answer(answer);
    else this.#showDraft();
  }

  async #skip() {
    const slot = this.current;
    const reason = await askReason();
    if (reason !== null && this.current === slot) this.answer(otherAnswer("skip", reason));
  }

  #back() {
    if (this.current && this.kind.back(this.draft)) return this.#showDraft();
    if (!this.cancelEdit()) this.undo();
  }

  /** The answer is kept first, then the next picture is shown, then the rest. */
  answer(answer) {
    const slot = this.current;
    const uuid = newUuid();
    const elapsedMs = Math.round(performance.now() - this.shownAt);
    this.outbox.add({ op: "judge", uuid, judgment: this.#judgment(uuid, slot, answer, elapsedMs) });
    const entry = { uuid, assignment: slot.assignment, pictures: slot.pictures, answer, supersedes: slot.supersedes ?? "", before: slot.before };
    if (slot.assignment.purpose === "training") {
      this.#awaitFeedback(entry);
    } else {
      this.#remember(entry);
      if (answer.answer === "hide_kind") this.#afterHideKind(entry);
      else this.next();
    }
    this.onChange(slot.supersedes ? 0 : 1);
    afterPaint(() => this.#afterwards(entry, elapsedMs));
  }

  #remember(entry) {
    this.latest = this.latest.filter((other) => other.uuid !== entry.supersedes);
    this.latest.unshift(entry);
    // Decoded pictures are large: far back, the address is enough.
    if (this.latest.length > 10) this.latest[10].pictures = null;
  }

  #judgment(uuid, slot, answer, elapsedMs) {
    return {
      uuid,
      assignmentId: slot.assignment.id,
      ...answer,
      reason: answer.reason ?? "",
      note: "",
      shownOrder: slot.assignment.shownOrder,
      elapsedMs,
      revealedMs: this.reveal.revealedMs,
      judgedAt: Date.now(),
      ...(slot.supersedes ? { supersedes: slot.supersedes } : {}),
    };
  }

  /** What can wait until the next picture is on the screen. */
  #afterwards(entry, elapsedMs) {
    this.exposure.act();
    this.view.flash(entry.answer);
    this.#noticeHaste(elapsedMs);
    this.view.announce(`${describe(entry.answer)}. ${this.current ? "Next picture." : ""}`);
    this.queue.fill();
  }

  #noticeHaste(elapsedMs) {
    this.quick = [...this.quick, elapsedMs].slice(-N_QUICK);
    if (this.quick.length < N_QUICK || this.quick.some((time) => time >= QUICK_MS)) return;
    this.quick = [];
    if (performance.now() - (this.hastenedAt ?? -Infinity) < 300_000) return;
    this.hastenedAt = performance.now();
    this.view.toast("That was very quick. Take the time you need; nobody is counting.");
  }

  #afterHideKind(entry) {
    this.queue.stop({ drop: true });
    this.queue.current = null;
    this.onHideKind(entry.uuid);
  }

  /** Take the last answer back and show its item again. */
  undo() {
    const entry = this.latest.shift();
    if (!entry) return this.view.toast("There is nothing to undo.");
    const isUnsent = this.outbox.takeBack(entry.uuid);
    if (!isUnsent) this.outbox.add({ op: "undo", uuid: newUuid(), target: entry.uuid });
    // An unsent change leaves the answer before it standing; anything else leaves nothing.
    const stands = isUnsent && entry.supersedes ? entry.supersedes : "";
    if (stands && entry.before) this.latest.unshift(entry.before);
    this.onChange(stands ? 0 : -1);
    this.#reopen(entry, stands, stands ? entry.before : undefined, `Taken back: ${describe(entry.answer)}.`);
  }

  /** Open an earlier judgment again; a new answer replaces it. */
  edit(entry) {
    if (this.waiting) return;
    this.#reopen(entry, entry.uuid, entry, `Change: ${describe(entry.answer)}.`);
  }

  /** Leave an earlier judgment as it is; whether there was one open. */
  cancelEdit() {
    if (!this.current?.supersedes) return false;
    this.view.announce("Left as it was.");
    this.next();
    return true;
  }

  /** Show an item again; `supersedes` and `before`: the answer that stands until a new one replaces it. */
  async #reopen(entry, supersedes, before, words) {
    if (this.current && !this.current.supersedes) this.queue.putBack(this.current);
    const slot = { assignment: entry.assignment, pictures: entry.pictures ?? [], supersedes, before, previous: entry.answer, isReopened: true };
    this.view.announce(words);
    this.queue.current = slot;
    if (slot.pictures.length === 0) {
      this.view.showState({ name: "loading", title: "Fetching that picture again", focus: false });
      try {
        await loadPictures(slot);
      } catch {
        this.view.toast("That picture is no longer there.");
        if (this.queue.current === slot) this.next();
        return;
      }
      if (this.queue.current !== slot) return;
    }
    slot.isReady = true;
    this.show(slot);
  }

  // ------------------------------------------------------------------ training

  #awaitFeedback(entry) {
    this.waiting = { uuid: entry.uuid, answer: entry.answer };
    this.view.showFeedback({ isRight: null, title: `You said: ${describe(entry.answer)}`, text: "Looking up what the guideline says …" }, () => this.goOn());
    this.waiting.timer = setTimeout(() => this.showFeedback(entry.uuid, null), FEEDBACK_PATIENCE_MS);
  }

  /** What the server said about a training answer; null: nothing came in time. */
  showFeedback(uuid, feedback) {
    if (this.waiting?.uuid !== uuid || this.waiting.isShown) return;
    clearTimeout(this.waiting.timer);
    this.waiting.isShown = true;
    const said = describe(this.waiting.answer);
    const title = feedback ? (feedback.isRight ? `Right: ${said}` : `You said ${said}; expected: ${describe(feedback.expected)}`) : `You said: ${said}`;
    const text = feedback ? feedback.explanation : "The explanation can't be fetched at the moment. Your answer is kept.";
    this.view.showFeedback({ isRight: feedback?.isRight ?? null, title, text }, () => this.goOn());
    this.view.announce(`${title}. ${text}`);
  }

  goOn() {
    if (!this.waiting?.isShown) return;
    this.waiting = null;
    this.view.hideFeedback();
    this.next();
  }
}
