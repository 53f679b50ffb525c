import { call } from "./api.js";
import { action, duration, h, put, say, show, time } from "./dom.js";

const kinds = { delivered: "good", failed: "bad", pending: "wait", retrying: "wait", cancelled: "" };

function badge(status) {
  return h("span", {}, h("span", { class: `badge ${kinds[status] ?? ""}` }, status));
}

// words are what causes mean; those that are not here say it themselves.
const words = { status: "answered with an error", dns: "name not found", blocked: "address not allowed", connect: "no connection", tls: "TLS failed", timeout: "took too long", event_gone: "event no longer kept" };

function pretty(value) {
  if (value === null || value === undefined) return "";
  return Object.entries(value).map(([key, v]) => `${key}: ${[v].flat().join(", ")}`).sort().join("\n");
}

function attempt(a) {
  const text = a.response_body + (a.response_truncated ? "\n… cut off" : "");
  return h("div", { class: "attempt" },
    h("div", { class: "row" }, h("strong", {}, a.attempt > 0 ? `Attempt ${a.attempt}` : "Not sent"), badge(a.outcome),
      a.status !== null && h("span", { class: "mono" }, `HTTP ${a.status}`), a.attempt > 0 && h("span", { class: "soft" }, duration(a.latency))),
    h("p", { class: "soft" }, time(a.created_at), a.next_at && [" · next ", time(a.next_at)]),
    a.error && h("p", { class: "fault break" }, a.error),
    a.attempt > 0 && h("details", {}, h("summary", {}, "Request and response"),
      h("h3", { class: "soft" }, "Request headers"), h("pre", { tabindex: "0" }, pretty(a.request_headers) || "–"),
      h("h3", { class: "soft" }, "Response headers"), h("pre", { tabindex: "0" }, pretty(a.response_headers) || "–"),
      h("h3", { class: "soft" }, "Response body"), h("pre", { tabindex: "0" }, text || "–")));
}

async function attempts(place, d) {
  const all = [];
  let cursor;
  do {
    const page = await call("GET", "attempts", { delivery_id: d.id, limit: 100, cursor });
    all.push(...page.data);
    cursor = page.next_cursor;
  } while (cursor && all.length < 100);
  show(place, all.length > 0 ? all.map(attempt) : h("p", { class: "soft" }, "No attempt has been made yet."));
}

// deliveries are those of an endpoint, as an element with its filters; load and follow read them anew.
export function deliveries(endpoint) {
  const list = h("div", {});
  const more = h("div", { class: "row" });
  const field = (text, e) => h("label", {}, h("span", {}, text), e);
  const status = h("select", {}, ["", "pending", "delivered", "failed", "cancelled"].map((s) => h("option", { value: s }, s || "any")));
  const type = h("input", { type: "text", placeholder: "task.post_create", autocapitalize: "off", spellcheck: "false" });
  const from = h("input", { type: "datetime-local" });
  const to = h("input", { type: "datetime-local" });
  const instant = (e) => (e.value ? new Date(e.value).toISOString() : "");

  function item(d) {
    const inside = h("div", {});
    const open = h("details", { class: "delivery", ontoggle: () => { if (open.open) attempts(inside, d).catch(failed); } },
      h("summary", {}, badge(d.status),
        h("span", { class: "break" }, d.event_type, !["event", "test"].includes(d.trigger) && h("span", { class: "soft" }, ` · ${d.trigger}`),
          d.cause && h("span", { class: "soft" }, ` · ${words[d.cause] ?? d.cause.replaceAll("_", " ")}`)),
        h("span", { class: "soft when" }, time(d.created_at))),
      h("div", { class: "inside" },
        h("p", { class: "soft mono break" }, d.webhook_id),
        d.status === "pending" && h("p", { class: "soft" }, "Due ", time(d.due_at)),
        h("div", { class: "row" },
          endpoint.enabled && !endpoint.archived_at && action(d.status === "pending" ? "Send now" : "Redeliver", async () => {
            await call("POST", `deliveries/${d.id}:redeliver`);
            say("It is sent again");
            await self.follow();
          }),
          d.status === "pending" && action("Skip", async () => {
            await call("POST", `deliveries/${d.id}:skip`);
            say("Given up");
            await self.load();
          })),
        inside));
    return open;
  }

  function failed(err) { if (!err.ended) say(err.message); }

  let asked = 0;
  async function load(cursor) {
    const mine = ++asked;
    let page;
    for (let i = 0; i < 10; i++) { // a page may be empty before the end
      page = await call("GET", "deliveries", { endpoint_id: endpoint.id, status: status.value, event_type: type.value.trim(), from: instant(from), to: instant(to), cursor });
      if (page.data.length > 0 || !page.next_cursor) break;
      cursor = page.next_cursor;
    }
    if (mine !== asked) return; // another question came after it
    if (!list.querySelector("details") || !cursor) show(list);
    put(list, page.data.map(item));
    if (!list.querySelector("details")) put(list, h("p", { class: "empty" }, page.next_cursor ? "Nothing yet: look further." : "No deliveries."));
    show(more, page.next_cursor && action("More", () => load(page.next_cursor)));
  }

  const self = {
    load,
    // follow reads again while what was asked for is under way, unless one looks into a delivery.
    async follow() {
      await load();
      for (const wait of [700, 1500, 3000]) {
        await new Promise((done) => { setTimeout(done, wait); });
        if (!list.isConnected || list.querySelector("details[open]")) return;
        await load();
      }
    },
    view: h("section", {},
      h("div", { class: "row apart" }, h("h2", {}, "Deliveries"), action("Refresh", () => load())),
      h("form", { class: "filters", onsubmit: (ev) => ev.preventDefault(), onchange: () => { load().catch(failed); } },
        field("Status", status), field("Event type", type), field("From", from), field("To", to)),
      list, more),
  };
  return self;
}
