// Pictures ahead: leases are claimed before they are needed, their pictures fetched and decoded, so that a key shows the next at once.

const AT_ONCE = 4; // pictures loading at a time: judgments and claims need connections too
const RETRY_MS = [500, 1000, 2000, 4000, 8000];
const LATER_MS = 15_000;

/**
 * A slot is one item on its way to being shown: {assignment, pictures: [img], isReady, isGone, supersedes?, previous?}.
 *
 * `claim(n, have)` resolves to {items, reason, held?, serverNow}. `onReady()`: a slot became ready, or the queue has changed;
 * `onReply(reply)`: what a claim brought; `onError(error)`: a claim failed.
 */
export class Prefetch {
  constructor({ claim, tabs, listKept, ahead = 8, onReady, onReply, onError }) {
    Object.assign(this, { claim, tabs, listKept, ahead, onReady, onReply, onError });
    this.slots = [];
    this.current = null;
    this.reason = null; // why the last claim brought fewer than asked; null = not asked yet
    this.isStopped = false;
    this.nLoading = 0;
  }

  /** The next slot if its pictures are decoded, else null; it leaves the queue. */
  take() {
    if (!this.slots[0]?.isReady) return null;
    return this.slots.shift();
  }

  /** Back to the front: an undo or an edit came between. */
  putBack(slot) {
    this.slots.unshift(slot);
  }

  get isEmpty() {
    return this.slots.length === 0;
  }

  get nReady() {
    return this.slots.filter((slot) => slot.isReady).length;
  }

  /** Stop asking (break, logout, cap); `drop` forgets what is ahead. */
  stop({ drop = false } = {}) {
    this.isStopped = true;
    if (drop) this.slots = [];
    clearTimeout(this.timer);
    clearTimeout(this.renewal);
    this.#share();
  }

  start() {
    this.isStopped = false;
    this.reason = null;
    return this.fill();
  }

  /** Ask for more when there are fewer than wanted ahead; one question at a time. */
  async fill({ isRenewal = false } = {}) {
    const n = this.ahead - this.slots.length;
    const isWanted = isRenewal || (n > 0 && (this.reason === null || this.reason === ""));
    if (this.isStopped || this.isAsking || !isWanted) return;
    this.isAsking = true;
    clearTimeout(this.timer);
    try {
      // A little more than is missing, so that not every answer needs a claim of its own.
      await this.tabs.alone("claim", () => this.#ask(Math.max(0, n > 0 ? n + 4 : 0)));
      this.nFailed = 0;
    } catch (error) {
      this.nFailed = (this.nFailed ?? 0) + 1;
      this.#askLater(RETRY_MS[Math.min(this.nFailed, RETRY_MS.length) - 1]);
      this.isAsking = false;
      return this.onError(error);
    }
    this.isAsking = false;
    this.onReady();
  }

  async #ask(n) {
    const own = this.#ownIds();
    const have = [...new Set([...own, ...this.listKept(), ...(await this.tabs.heldByOthers())])];
    const reply = await this.claim(n, have);
    if (this.isStopped) return;
    this.#dropLost(reply.held, own);
    for (const assignment of reply.items) this.#enqueue(assignment);
    this.#share();
    // A reply to a mere renewal says nothing about what is left.
    if (n > 0) this.reason = reply.items.length < n ? (reply.reason ?? "") : "";
    this.#renewBefore(reply);
    this.onReply(reply);
    this.#load();
    if (n > 0 && reply.items.length === 0 && this.reason === "") this.#askLater(LATER_MS);
  }

  #askLater(milliseconds) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.fill(), milliseconds);
  }

  #ownIds() {
    return [this.current, ...this.slots].filter(Boolean).map((slot) => slot.assignment.id);
  }

  /** What waits here and is leased no longer (the machine slept) goes: somebody else may have it. */
  #dropLost(held, asked) {
    if (!Array.isArray(held)) return;
    const kept = new Set(held);
    const known = new Set(asked);
    this.slots = this.slots.filter((slot) => slot.isReopened || !known.has(slot.assignment.id) || kept.has(slot.assignment.id));
  }

  #enqueue(assignment) {
    const sameItem = [this.current, ...this.slots].find((slot) => slot?.assignment.itemId === assignment.itemId);
    // Leased anew after the old lease ended: the same pictures, the new number.
    if (sameItem) Object.assign(sameItem.assignment, { id: assignment.id, expiresAt: assignment.expiresAt });
    else this.slots.push({ assignment, pictures: [], isReady: false });
  }

  #share() {
    this.tabs.share(this.#ownIds());
  }

  /** Ask again when half of the shortest lease is over; by the server's clock, whatever ours says. */
  #renewBefore({ items, serverNow }) {
    const ends = items.map((assignment) => assignment.expiresAt);
    if (ends.length > 0) this.termMs = Math.max(2000, Math.min(...ends) - serverNow);
    clearTimeout(this.renewal);
    if (this.termMs) this.renewal = setTimeout(() => this.fill({ isRenewal: true }), Math.min(this.termMs / 2, 2 ** 31 - 1));
  }

  #load() {
    for (const slot of this.slots) {
      if (this.nLoading >= AT_ONCE) return;
      if (slot.isReady || slot.isLoading) continue;
      slot.isLoading = true;
      this.nLoading += slot.assignment.images.length;
      this.#loadSlot(slot).finally(() => {
        slot.isLoading = false;
        this.nLoading -= slot.assignment.images.length;
        this.#load();
      });
    }
  }

  async #loadSlot(slot) {
    try {
      await loadPictures(slot);
    } catch (error) {
      if (!(error instanceof GoneError)) throw error;
      slot.isGone = true;
      this.slots = this.slots.filter((other) => other !== slot);
      this.fill();
    }
    this.onReady();
  }
}

class GoneError extends Error {}

/** Fetch and decode a slot's pictures, trying again while the network is away. */
export async function loadPictures(slot) {
  slot.pictures = await Promise.all(slot.assignment.images.map((image) => loadPicture(image)));
  slot.isReady = true;
  return slot;
}

async function loadPicture({ url, width, height }) {
  for (let attempt = 0; ; attempt += 1) {
    const picture = new Image(width, height);
    picture.alt = "";
    picture.style.setProperty("--ratio", String(width / height || 1));
    picture.draggable = false;
    picture.decoding = "sync";
    picture.src = url;
    try {
      await picture.decode();
      return picture;
    } catch {
      if (await isGone(url)) throw new GoneError(url);
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)]));
    }
  }
}

/** Whether the server says that there is no such picture (any more), as against not answering. */
async function isGone(url) {
  try {
    const { status } = await fetch(url, { cache: "no-store", credentials: "same-origin" });
    return status === 404 || status === 410;
  } catch {
    return false;
  }
}
