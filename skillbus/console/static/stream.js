// The stream of events, and whether it can be believed. It says since when it is silent, and keeps trying.

const SILENT_MS = 20_000; // the console tells its status every two seconds
const AGAIN_MS = 3000;
const EVENTS = ["snapshot", "status", "pods", "beats", "audit", "kill"];

export class Stream {
  // take: called with (event, data). tell: called with the instant (ms) since when it is lost; 0: it is live.
  constructor(url, take, tell) {
    this.url = url;
    this.take = take;
    this.tell = tell;
    this.heardAt = Date.now();
    this.lostSince = 0;
    this.source = null;
    this.again = 0;
    this.#open();
    setInterval(() => this.#check(), 1000);
    addEventListener("online", () => this.#reopen());
    addEventListener("pagehide", () => this.source?.close());
    addEventListener("pageshow", (event) => event.persisted && this.#reopen());
  }

  #open() {
    const source = new EventSource(this.url);
    this.source = source;
    for (const name of EVENTS) {
      source.addEventListener(name, (event) => {
        if (source !== this.source) return;
        this.heardAt = Date.now();
        if (name === "snapshot") this.#isLost(0);
        this.take(name, JSON.parse(event.data));
      });
    }
    source.addEventListener("error", () => {
      if (source !== this.source) return;
      this.#isLost(this.heardAt);
      if (source.readyState === EventSource.CLOSED) {
        clearTimeout(this.again);
        this.again = setTimeout(() => this.#reopen(), AGAIN_MS);
      }
    });
  }

  #reopen() {
    clearTimeout(this.again);
    this.source?.close();
    this.#open();
  }

  #check() {
    if (Date.now() - this.heardAt < SILENT_MS || this.source?.readyState === EventSource.CLOSED) return;
    this.#isLost(this.heardAt);
    this.heardAt = Date.now(); // so that it is tried again, and not every second
    this.#reopen();
  }

  #isLost(since) {
    if (since && this.lostSince) return;
    if (!since && !this.lostSince && this.hasTold) return;
    this.hasTold = true;
    this.lostSince = since;
    this.tell(since);
  }
}
