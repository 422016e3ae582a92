// Care for the person: how long and how much they have looked, and what is uncovered.

const IDLE_MS = 60_000; // a longer gap between two acts is a pause, not work

/**
 * Minutes looked at pictures today and since the last break, and pictures uncovered today. `cap`: minutes a day, all projects
 * together. Time is monotonic, so a changed clock does no harm.
 */
export class Exposure {
  constructor({ stretchMinutes = 0, ...counted } = {}, clock = () => performance.now()) {
    Object.assign(this, { revealed: 0, minutesBefore: 0, cap: 0, breakAfterMinutes: 25, clock });
    this.activeMs = 0;
    this.sinceBreakMs = stretchMinutes * 60_000;
    this.lastActAt = clock();
    this.update(counted);
  }

  /** Something was judged or revealed. */
  act() {
    const now = this.clock();
    const gap = now - this.lastActAt;
    this.lastActAt = now;
    if (gap > IDLE_MS) return;
    this.activeMs += gap;
    this.sinceBreakMs += gap;
  }

  /** What the server counted; what this page has seen since is kept if it is more. */
  update({ revealed = 0, minutes = 0, cap = this.cap, breakAfterMinutes = this.breakAfterMinutes }) {
    this.revealed = Math.max(this.revealed, revealed);
    this.minutesBefore = Math.max(this.minutesBefore, minutes - this.activeMs / 60_000);
    Object.assign(this, { cap, breakAfterMinutes });
  }

  get minutes() {
    return Math.floor(this.minutesBefore + this.activeMs / 60_000);
  }

  get isBreakDue() {
    return this.breakAfterMinutes > 0 && this.sinceBreakMs >= this.breakAfterMinutes * 60_000;
  }

  get isCapReached() {
    return this.cap > 0 && this.minutes >= this.cap;
  }

  /** A break was taken, or put off by so many minutes. */
  rest(postponedMinutes = null) {
    this.lastActAt = this.clock();
    const kept = postponedMinutes === null ? 0 : this.breakAfterMinutes - postponedMinutes;
    this.sinceBreakMs = Math.max(0, kept) * 60_000;
  }
}

/** Uncovers a sensitive picture while something is held (a key, a finger), and adds up for how long. */
export class Reveal {
  constructor({ onChange, onFirst, clock = () => performance.now() }) {
    Object.assign(this, { onChange, onFirst, clock, isOn: false, isOnce: false });
    this.reset();
  }

  /** A new item: covered, nothing revealed. */
  reset() {
    if (this.isOn) this.#set(false);
    this.totalMs = 0;
    this.isSeen = false;
  }

  /** Pressed: uncovers; where one press is enough, the next press covers again. */
  press() {
    this.#set(this.isOnce ? !this.isOn : true);
  }

  release() {
    if (!this.isOnce) this.#set(false);
  }

  cover() {
    this.#set(false);
  }

  /** Milliseconds uncovered since the item was shown. */
  get revealedMs() {
    return Math.round(this.totalMs + (this.isOn ? this.clock() - this.since : 0));
  }

  #set(isOn) {
    if (isOn === this.isOn) return;
    if (isOn) this.since = this.clock();
    else this.totalMs += this.clock() - this.since;
    this.isOn = isOn;
    if (isOn && !this.isSeen) {
      this.isSeen = true;
      this.onFirst();
    }
    this.onChange(isOn);
  }
}

/** What to read before the first picture of a sensitive project, when the project has no wording of its own. */
export const RISK_NOTICE =
  "Some of these pictures may be disturbing. They are blurred and grey until you hold a key or a finger on them; that is your choice to make, " +
  "not a protection. You may pause, skip, refuse a kind of content, or stop for good, at any time, and nothing follows from it.";
