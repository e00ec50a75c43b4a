// Questions and orders to the console. An order bears the page's CSRF token, and a key that lets it be given once only.

export const HOME = document.body.dataset.home;
const CSRF = document.querySelector('meta[name="csrf"]').content;

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || `the console answered ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

export async function ask(path) {
  return answered(await fetch(HOME + path, { headers: { Accept: "application/json" } }));
}

export async function order(path, body, key) {
  const headers = { "Content-Type": "application/json", "X-CSRF-Token": CSRF, "Idempotency-Key": key };
  let response;
  try {
    response = await fetch(HOME + path, { method: "POST", headers, body: JSON.stringify(body) });
  } catch {
    const detail = "The console did not answer: whether this was done is not known. Try again: the same order is not given twice. Or use skillbus kill, or redis-cli.";
    throw new Refused(0, { detail });
  }
  return answered(response);
}

// Randomness without crypto.randomUUID, which plain http on a foreign network does not have.
export function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function answered(response) {
  let said = {};
  try {
    said = await response.json();
  } catch { /* told below */ }
  // A kill that is not recorded is a 503 with the whole answer.
  if (!response.ok) throw new Refused(response.status, said.sentence ? { detail: said.sentence } : said);
  return said;
}
