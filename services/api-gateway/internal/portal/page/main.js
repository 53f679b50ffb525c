import { about, forget, onEnd, take } from "./api.js";
import { h, show } from "./dom.js";
import { detail, overview } from "./endpoints.js";
import { create, edit } from "./form.js";

const main = document.getElementById("main");
const until = document.getElementById("until");
let expiry;

function over() {
  clearTimeout(expiry);
  until.textContent = "";
  document.querySelectorAll("dialog").forEach((d) => d.close());
  document.title = "Link ended – Webhooks";
  show(main, h("div", { class: "ended" },
    h("h1", {}, "This link no longer works"),
    h("p", {}, "It has ended or was taken back. Ask whoever gave it to you for a new link.")));
}

const views = [
  [/^#\/new$/, create],
  [/^#\/(\d+)$/, detail],
  [/^#\/(\d+)\/edit$/, edit],
  [/^/, overview],
];

// route shows what the address says.
async function route() {
  if (take()) arrive();
  const claims = about();
  if (!claims) return over();
  for (const [pattern, view] of views) {
    const found = pattern.exec(location.hash);
    if (!found) continue;
    const place = h("div", { "aria-busy": "true" }); // of this view alone: one that comes late must not replace the next
    show(main, place);
    try {
      await view(place, ...found.slice(1));
    } catch (err) {
      if (!err.ended) {
        show(place, h("p", { class: "problem", role: "alert" }, err.message), h("a", { class: "button", href: "#/" }, "All endpoints"));
      }
    }
    if (!place.isConnected) return undefined;
    place.removeAttribute("aria-busy");
    const heading = place.querySelector("h1");
    document.title = heading ? `${heading.textContent} – Webhooks` : "Webhooks";
    return undefined;
  }
  return undefined;
}

// arrive tells how long the link works. A timer waits 2^31 ms at most, which no link lasts.
function arrive() {
  const claims = about();
  if (!claims) return;
  const today = claims.until.toDateString() === new Date().toDateString();
  until.textContent = `Link works until ${claims.until.toLocaleString(undefined, { dateStyle: today ? undefined : "medium", timeStyle: "short" })}`;
  clearTimeout(expiry);
  expiry = setTimeout(forget, Math.max(0, claims.until - Date.now()));
}

onEnd(over);
take();
arrive();
addEventListener("hashchange", () => { main.focus(); scrollTo(0, 0); route(); });
route();
