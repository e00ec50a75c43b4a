// What is known of the fleet: its status, its pods, the server's time. No DOM in here.

export const ID = 0, WORD = 1, OFF = 2, BEAT = 3, HEARS = 4, LATE = 5, GROUPS = 6, OUTCOME = 7, PASS = 8, SKILLS = 9, VERSION = 10, WHY = 11, TWIN = 12;
export const COLUMNS = ["id", "word", "straggles", "beat_at_ms", "hears", "is_late", "groups", "outcome", "pass_at_ms", "skills", "version", "why", "is_twin"];

const TROUBLE = ["deaf", "running", "stopping", "starting", "holding", "unconfirmed", "fenced", "stopped", "ended", "lost"];
const RANK = new Map(TROUBLE.map((word, rank) => [word, rank]));
const COLLATOR = new Intl.Collator("en", { numeric: true });

export class Fleet {
  constructor() {
    this.status = null;
    this.pods = new Map();
    this.isFrozen = true;
    this.baseMs = 0;
    this.baseAt = 0;
  }

  // Server time, carried on by this machine's own clock while what is shown is fresh.
  get nowMs() {
    const isStill = this.isFrozen || this.status?.blind;
    return this.baseMs + (isStill ? 0 : performance.now() - this.baseAt);
  }

  #time(nowMs) {
    if (nowMs < this.baseMs && nowMs > this.baseMs - 60_000) return; // events overtake each other a little
    this.baseMs = nowMs;
    this.baseAt = performance.now();
  }

  freeze() {
    this.baseMs = this.nowMs;
    this.isFrozen = true;
  }

  takeStatus(status) {
    this.status = status;
    this.#time(status.now_ms);
  }

  takeSnapshot({ status, pods }) {
    this.isFrozen = false;
    this.baseMs = 0;
    this.pods = new Map(pods.map((row) => [row[ID], row]));
    this.takeStatus(status);
  }

  // Whether a pod came or went.
  takePods({ now_ms: nowMs, changed, gone }) {
    const before = this.pods.size;
    for (const row of changed) this.pods.set(row[ID], row);
    const came = this.pods.size > before;
    for (const id of gone) this.pods.delete(id);
    this.#time(nowMs);
    return came || gone.length > 0;
  }

  takeBeats({ now_ms: nowMs, base_ms: baseMs, beats }) {
    for (const [id, ms] of Object.entries(beats)) {
      const row = this.pods.get(id);
      if (row) row[BEAT] = baseMs + ms;
    }
    this.#time(nowMs);
  }
}

// Pods that match, in order; without a key: who is not as they should be first.
export function selected(pods, { text = "", word = "", key = "", isDown = false } = {}) {
  const wanted = text.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const found = [];
  for (const row of pods.values()) {
    if (word && row[WORD] !== word) continue;
    if (wanted.length && !matches(row, wanted)) continue;
    found.push(row);
  }
  const column = COLUMNS.indexOf(key);
  found.sort(column < 0 ? byTrouble : (one, other) => byColumn(one, other, column));
  return isDown ? found.reverse() : found;
}

function matches(row, wanted) {
  const text = `${row[ID]} ${row[WORD]} ${row[GROUPS].join(" ")} ${row[SKILLS]} ${row[VERSION]} ${row[OUTCOME]}`.toLowerCase();
  return wanted.every((part) => text.includes(part));
}

export function byId(one, other) {
  return one[ID] < other[ID] ? -1 : one[ID] > other[ID] ? 1 : 0;
}

function byTrouble(one, other) {
  return other[OFF] - one[OFF] || RANK.get(one[WORD]) - RANK.get(other[WORD]) || byId(one, other);
}

function byColumn(one, other, column) {
  const [left, right] = [one[column], other[column]];
  const told = typeof left === "string" ? COLLATOR.compare(left, right) : Array.isArray(left) ? COLLATOR.compare(left.join(), right.join()) : left - right;
  return told || byId(one, other);
}
