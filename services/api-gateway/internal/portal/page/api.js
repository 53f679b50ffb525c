// The token comes behind the # of the link. It is kept for this tab alone, and taken out of the address, so that neither
// the history nor a copied address has it.

const place = "sametick-portal";
const api = new URL("../webhooks/", new URL(".", location.href));

let token = "";
let ended = () => {};

export function take() {
  const given = /^#token=(.+)$/.exec(location.hash);
  if (given) {
    sessionStorage.setItem(place, decodeURIComponent(given[1]));
    history.replaceState(null, "", "#/");
  }
  token = sessionStorage.getItem(place) ?? "";
  return Boolean(given);
}

// onEnd is called with a sentence when the link no longer works.
export function onEnd(f) { ended = f; }

// about is what the token says of itself: the server holds it to that, this only tells what to show.
export function about() {
  try {
    const part = token.slice("stw_".length).split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const claims = JSON.parse(atob(part));
    return { until: new Date(claims.exp * 1000), limited: (claims.endpoints ?? []).length > 0 };
  } catch {
    return null;
  }
}

export class Problem extends Error {
  constructor(text, fields, gone) {
    super(text);
    this.fields = fields;
    this.ended = gone;
  }
}

export async function call(method, path, content) {
  const url = new URL(path, api);
  const options = { method, headers: { Authorization: `Bearer ${token}` }, cache: "no-store", referrerPolicy: "no-referrer", credentials: "omit" };
  if (method === "GET" || method === "DELETE") {
    for (const [key, value] of Object.entries(content ?? {})) {
      if (value !== undefined && value !== null && value !== "") url.searchParams.append(key, value);
    }
  } else {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(content ?? {});
  }
  let answer;
  try {
    answer = await fetch(url, options);
  } catch {
    throw new Problem("The server cannot be reached. Try again.", [], false);
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  if (answer.status === 401) {
    forget();
    throw new Problem("The link no longer works.", [], true);
  }
  const fields = body.errors ?? [];
  const details = fields.map((f) => `${f.field}: ${f.description}`).join("; ");
  throw new Problem(sentence(body.detail ?? `The server answered ${answer.status}.`) + (details ? ` ${details}` : ""), fields, false);
}

function sentence(text) {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}

export function forget() {
  token = "";
  sessionStorage.removeItem(place);
  ended();
}
