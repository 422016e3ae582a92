// What was judged and is not yet acknowledged. One entry of localStorage each, so that tabs never overwrite one another; ids and
// labels only, never pictures or prompts. An entry goes when the server has acknowledged it, and never before.

import { ApiError, NetworkError } from "./api.js";
import { keysWithPrefix } from "./tabs.js";

const MAX_BATCH = 50;
const FIRST_WAIT_MS = 500;
const LAST_WAIT_MS = 30_000;
const ACKNOWLEDGED = new Set(["stored", "known", "expired"]);

/**
 * An entry: {op: "judge", uuid, judgment} | {op: "undo", uuid, target} | {op: "report", uuid, assignmentId, note}, each with
 * {seq, tab, project} and, once the server has said no for good, {refused: why}.
 *
 * `soon(act)`: runs it once the next picture has been painted. `onChange(state)`: "saved", "sending", "waiting" (tries again), "logged_out", "other_account", "forbidden".
 * `onResult(entry, result)`: an entry was acknowledged, dropped as a conflict, or refused.
 */
export class Outbox {
  constructor({ storage, tabs, routes, account, project, soon, onChange = () => {}, onResult = () => {} }) {
    Object.assign(this, { storage, tabs, routes, account, project, soon, onChange, onResult });
    this.prefix = `hfi.outbox|${encodeURIComponent(account)}|`;
    this.inFlight = new Set();
    this.batchLimit = MAX_BATCH;
    this.waitMs = FIRST_WAIT_MS;
    this.state = "saved";
    this.pumping = null;
    this.lastSeq = Math.max(0, ...this.list().map((entry) => entry.seq));
  }

  /** Everything unacknowledged of this account, oldest first. */
  list() {
    const entries = keysWithPrefix(this.storage, this.prefix).map((key) => JSON.parse(this.storage.getItem(key)));
    return entries.filter(Boolean).sort((one, other) => one.seq - other.seq);
  }

  get size() {
    return keysWithPrefix(this.storage, this.prefix).length;
  }

  /** The assignments answered and not acknowledged. */
  get assignmentIds() {
    return this.list().flatMap((entry) => entry.judgment?.assignmentId ?? entry.assignmentId ?? []);
  }

  /** Keep an entry and send it soon. */
  add(content) {
    this.lastSeq = Math.max(Date.now(), this.lastSeq + 1);
    const entry = { ...content, seq: this.lastSeq, tab: this.tabs.id, project: this.project };
    this.#write(entry);
    this.soon(async () => {
      // One that is just ending may have looked already.
      await this.pumping;
      this.pump();
    });
    return entry;
  }

  /** Take an entry back before it is sent; false if it has left, or may have. */
  takeBack(uuid) {
    const text = this.storage.getItem(this.#key(uuid));
    if (text === null || this.inFlight.has(uuid)) return false;
    const entry = JSON.parse(text);
    if (entry.tab !== this.tabs.id || entry.wasSent) return false;
    this.#remove(uuid);
    this.#report(this.state);
    return true;
  }

  /** Forget everything (at logout, after a warning). */
  clear() {
    for (const entry of this.list()) this.#remove(entry.uuid);
    this.#report("saved");
  }

  dropRefused() {
    for (const entry of this.list()) if (entry.refused) this.#remove(entry.uuid);
    this.#report(this.state);
  }

  /** Try again now, the refused too: somebody asked, the network came back, or somebody logged in. */
  retry() {
    for (const { refused, ...entry } of this.list()) if (refused) this.#write(entry);
    this.waitMs = FIRST_WAIT_MS;
    clearTimeout(this.timer);
    return this.pump();
  }

  /** Send until nothing is left or something is in the way; resolves when that is so. */
  pump() {
    this.pumping ??= this.#pump().finally(() => {
      this.pumping = null;
    });
    return this.pumping;
  }

  async #pump() {
    clearTimeout(this.timer);
    try {
      for (let batch = await this.#nextBatch(); batch.length > 0; batch = await this.#nextBatch()) {
        if (this.state !== "waiting") this.#report("sending");
        await this.#send(batch);
        this.waitMs = FIRST_WAIT_MS;
      }
      this.#report("saved");
    } catch (error) {
      this.#failed(error);
    }
  }

  /** The page goes away: one last try that outlives it. What comes of it is seen at the next visit. */
  sendAtLeaving() {
    const left = this.list().filter((entry) => entry.op === "judge" && !entry.refused && entry.tab === this.tabs.id).slice(0, MAX_BATCH);
    if (left.length === 0 || this.state === "logged_out") return;
    for (const entry of left) this.#write({ ...entry, wasSent: true });
    this.routes.submit(this.account, left.map((entry) => entry.judgment), { keepalive: true }).catch(() => {});
  }

  /** Own entries, and those of tabs that are closed; judgments together, anything else alone and in its turn. */
  async #nextBatch() {
    const waiting = this.list().filter((entry) => !entry.refused);
    if (waiting.length === 0) return [];
    const isForeign = waiting.some((entry) => entry.tab !== this.tabs.id);
    const alive = isForeign ? await this.tabs.listAlive() : null;
    const mine = waiting.filter((entry) => entry.tab === this.tabs.id || !alive?.has(entry.tab));
    const end = mine.findIndex((entry) => entry.op !== "judge");
    if (end === 0) return mine.slice(0, 1);
    // Taken back while we asked which tabs are alive: no longer there.
    const batch = mine.slice(0, end === -1 ? this.batchLimit : Math.min(end, this.batchLimit));
    return batch.filter((entry) => this.storage.getItem(this.#key(entry.uuid)) !== null);
  }

  async #send(batch) {
    for (const entry of batch) this.inFlight.add(entry.uuid);
    try {
      if (batch[0].op === "judge") await this.#sendJudgments(batch);
      else await this.#sendAct(batch[0]);
    } catch (error) {
      // It may have arrived although no answer came: from now on only the server can take it back.
      if (error instanceof NetworkError) this.#markSent(batch);
      throw error;
    } finally {
      for (const entry of batch) this.inFlight.delete(entry.uuid);
    }
  }

  #markSent(batch) {
    for (const entry of batch) this.#write({ ...entry, wasSent: true });
  }

  async #sendJudgments(batch) {
    let results;
    try {
      const { body } = await this.routes.submit(this.account, batch.map((entry) => entry.judgment));
      results = new Map(body.results.map((result) => [result.uuid, result]));
    } catch (error) {
      if (!isRefusal(error)) throw error;
      // One of them spoils the request: send them one by one, and keep the one that is refused.
      if (batch.length > 1) this.batchLimit = 1;
      else this.#refuse(batch[0], error.message);
      return;
    }
    this.batchLimit = MAX_BATCH;
    for (const entry of batch) this.#settle(entry, results.get(entry.uuid));
    if (!batch.some((entry) => results.has(entry.uuid))) throw new NetworkError("The server said nothing about what was sent.");
  }

  #settle(entry, result) {
    if (result === undefined) return;
    if (result.status === "invalid") {
      this.#refuse(entry, result.message);
    } else if (ACKNOWLEDGED.has(result.status) || result.status === "conflict") {
      this.#remove(entry.uuid);
      this.onResult(entry, result);
    }
  }

  async #sendAct(entry) {
    try {
      const isUndo = entry.op === "undo";
      const { body } = isUndo ? await this.routes.undo(entry.target, entry.uuid) : await this.routes.report(entry.assignmentId, entry.note);
      this.#remove(entry.uuid);
      this.onResult(entry, { status: "stored", body });
    } catch (error) {
      if (!isRefusal(error)) throw error;
      // Nothing there to undo or hide, or done already: what was wanted is so.
      const isDone = error.status === 404 || error.status === 409 || error.status === 410;
      if (isDone) this.#remove(entry.uuid);
      else this.#refuse(entry, error.message);
    }
  }

  #refuse(entry, message) {
    this.#write({ ...entry, refused: message || "The server refused it." });
    this.onResult(entry, { status: "invalid", message });
  }

  #failed(error) {
    if (error instanceof ApiError && error.status === 401) return this.#report("logged_out");
    if (error instanceof ApiError && error.code === "other_account") return this.#report("other_account");
    if (!(error instanceof ApiError || error instanceof NetworkError)) console.error(error);
    const isForbidden = error instanceof ApiError && error.status === 403;
    const wait = isForbidden ? LAST_WAIT_MS : this.waitMs * (0.75 + Math.random() / 2);
    this.waitMs = Math.min(this.waitMs * 2, LAST_WAIT_MS);
    this.timer = setTimeout(() => this.pump(), wait);
    this.#report(isForbidden ? "forbidden" : "waiting");
  }

  #report(state) {
    this.state = state;
    this.onChange(state);
  }

  #key(uuid) {
    return this.prefix + uuid;
  }

  #write(entry) {
    this.storage.setItem(this.#key(entry.uuid), JSON.stringify(entry));
  }

  #remove(uuid) {
    this.storage.removeItem(this.#key(uuid));
  }
}

/** The server understood and said no: waiting will not help. */
function isRefusal(error) {
  if (!(error instanceof ApiError) || error.code === "other_account") return false;
  return error.status >= 400 && error.status < 500 && ![401, 403, 408, 429].includes(error.status);
}
