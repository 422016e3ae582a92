// Several tabs of one browser: which are alive, and which leases each of them holds.

const HELD = "hfi.held|";

/** A random UUID; `crypto.randomUUID` is missing where the page is not served securely (a plain address in a local network). */
export function newUuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** `localStorage`, or the same for the life of the page where the browser refuses it. */
export function openStorage() {
  try {
    localStorage.setItem("hfi.probe", "1");
    localStorage.removeItem("hfi.probe");
    return localStorage;
  } catch {
    return new MemoryStorage();
  }
}

class MemoryStorage {
  #values = new Map();
  isMemory = true;
  get length() {
    return this.#values.size;
  }
  key(index) {
    return [...this.#values.keys()][index] ?? null;
  }
  getItem(key) {
    return this.#values.get(key) ?? null;
  }
  setItem(key, value) {
    this.#values.set(key, String(value));
  }
  removeItem(key) {
    this.#values.delete(key);
  }
}

/** Every key of a storage that begins with a prefix. */
export function keysWithPrefix(storage, prefix) {
  const keys = [];
  for (let index = 0; index < storage.length; index += 1) {
    const key = storage.key(index);
    if (key?.startsWith(prefix)) keys.push(key);
  }
  return keys;
}

/** This tab among the others. A tab is alive while it holds the lock that bears its name. */
export class Tabs {
  constructor(storage, locks = navigator.locks) {
    this.id = newUuid();
    this.storage = storage;
    this.locks = locks;
    this.locks?.request(`hfi-tab-${this.id}`, () => new Promise(() => {}));
  }

  /** The ids of the tabs that are open; null where the browser can't tell. */
  async listAlive() {
    if (!this.locks?.query) return null;
    const { held = [], pending = [] } = await this.locks.query();
    const names = [...held, ...pending].map((lock) => lock.name).filter((name) => name.startsWith("hfi-tab-"));
    return new Set([this.id, ...names.map((name) => name.slice("hfi-tab-".length))]);
  }

  /** Run `action` while no other tab runs one of the same name. */
  alone(name, action) {
    return this.locks ? this.locks.request(`hfi-${name}`, action) : action();
  }

  /** Tell the other tabs which assignments this one holds. */
  share(assignmentIds) {
    this.storage.setItem(HELD + this.id, JSON.stringify(assignmentIds));
  }

  /** The assignments that other open tabs hold; what closed tabs left is forgotten. */
  async heldByOthers() {
    const alive = await this.listAlive();
    const ids = [];
    for (const key of keysWithPrefix(this.storage, HELD)) {
      const tab = key.slice(HELD.length);
      if (tab === this.id) continue;
      if (alive?.has(tab)) ids.push(...JSON.parse(this.storage.getItem(key) ?? "[]"));
      else this.storage.removeItem(key);
    }
    return ids;
  }
}
