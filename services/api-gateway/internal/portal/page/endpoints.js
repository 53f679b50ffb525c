import { about, call } from "./api.js";
import { action, ask, confirm, duration, h, put, say, show, time } from "./dom.js";
import { deliveries } from "./deliveries.js";

export function name(e) {
  if (e.description) return e.description;
  try { return new URL(e.url).host; } catch { return e.url; }
}

function badge(e) {
  if (e.archived_at) return h("span", { class: "badge" }, "Archived");
  if (!e.enabled) {
    const why = { by_hand: "Disabled", gone: "Disabled: it answered 410", failing: "Disabled: it kept failing" };
    return h("span", { class: e.disabled_reason === "by_hand" ? "badge" : "badge bad" }, why[e.disabled_reason] ?? "Disabled");
  }
  if (e.failing_since) return h("span", { class: "badge wait" }, "Failing");
  return h("span", { class: "badge good" }, "Enabled");
}

function fact(term, value) { return h("div", {}, h("dt", {}, term), h("dd", {}, value)); }

function stats(s) {
  const rate = s.success_rate;
  return h("dl", { class: "stats" },
    fact("Success", rate === null ? "–" : `${(rate * 100).toFixed(rate === 1 || rate === 0 ? 0 : 1)} %`),
    fact("Attempts", s.attempts.toLocaleString()),
    fact("Waiting", s.backlog.toLocaleString()),
    fact("p50", duration(s.latency_p50)), fact("p95", duration(s.latency_p95)), fact("p99", duration(s.latency_p99)));
}

// few does work for each of a list, four at a time.
async function few(list, work) {
  const left = [...list];
  await Promise.all(Array.from({ length: 4 }, async () => {
    while (left.length > 0) await work(left.shift());
  }));
}

export async function overview(main) {
  let archived = false;
  const list = h("div", {});
  const more = h("div", { class: "row" });
  async function load(cursor) {
    const page = await call("GET", "endpoints", { cursor, include_archived: archived ? "true" : undefined });
    if (!cursor) show(list);
    show(more);
    const empty = new Map();
    for (const e of page.data) {
      const numbers = h("div", {});
      empty.set(e.id, numbers);
      put(list, h("a", { class: "card", href: `#/${e.id}` },
        h("div", { class: "row apart" }, h("strong", {}, name(e)), badge(e)),
        h("p", { class: "soft mono break" }, e.url),
        h("p", { class: "soft" }, e.event_types.length > 0 ? e.event_types.join(", ") : "All events"),
        numbers));
    }
    if (!cursor && page.data.length === 0) put(list, h("p", { class: "empty" }, "There are no endpoints yet."));
    if (page.next_cursor) put(more, action("More", () => load(page.next_cursor)));
    await few(page.data.filter((e) => !e.archived_at), async (e) => {
      try { put(empty.get(e.id), stats(await call("GET", `endpoints/${e.id}/stats`))); } catch (err) { if (err.ended) throw err; }
    });
  }
  show(main,
    h("div", { class: "row apart" }, h("h1", {}, "Endpoints"),
      !about()?.limited && h("a", { class: "button main", href: "#/new" }, "Add endpoint")),
    h("p", { class: "soft" }, "Numbers are of the last 24 hours."),
    list, more,
    h("label", { class: "check" }, h("span", {}, "Show archived endpoints"),
      h("input", { type: "checkbox", onchange: (ev) => { archived = ev.target.checked; load().catch((err) => { if (!err.ended) say(err.message); }); } })));
  await load();
}

// secret shows a secret, this once.
export function secret(text) {
  return ask("Signing secret", (close) => [
    h("p", {}, "It is shown only now. Store it where the receiver reads it."),
    h("pre", { class: "secret", tabindex: "0" }, text),
    h("div", { class: "row" },
      navigator.clipboard && action("Copy", async () => { await navigator.clipboard.writeText(text); say("Copied"); }),
      h("button", { type: "button", class: "main", onclick: () => close() }, "I have stored it")),
  ]);
}

function rotation() {
  return ask("New signing secret", (close) => {
    const overlap = h("select", {}, [[86400, "24 hours"], [3600, "1 hour"], [604800, "7 days"], [0, "not at all"]].map(([s, text]) => h("option", { value: s }, text)));
    return [
      h("p", {}, "Requests are signed by the new secret and, for a while, by the old one too."),
      h("label", {}, h("span", {}, "The old one works on for"), overlap),
      h("div", { class: "row" },
        h("button", { type: "button", onclick: () => close() }, "Cancel"),
        h("button", { type: "button", class: "main", onclick: () => close(Number(overlap.value)) }, "Make a new secret")),
    ];
  });
}

function recovery() {
  return ask("Recover failed deliveries", (close) => {
    const since = h("select", {}, [[1, "the last hour"], [24, "the last 24 hours"], [168, "the last 7 days"], [720, "the last 30 days"]]
      .map(([hours, text]) => h("option", { value: hours, selected: hours === 24 }, text)));
    return [
      h("p", {}, "What failed for good, or was given up while the endpoint was disabled, is sent again."),
      h("label", {}, h("span", {}, "Since"), since),
      h("div", { class: "row" },
        h("button", { type: "button", onclick: () => close() }, "Cancel"),
        h("button", { type: "button", class: "main", onclick: () => close(Number(since.value)) }, "Send again")),
    ];
  });
}

function settings(e) {
  const rows = [
    ["Events", e.event_types.join(", ") || "All events"],
    ["Aggregates", [...e.aggregate_types, ...e.aggregate_ids.map((id) => `#${id}`)].join(", ")],
    ["Filter", e.filter], ["Transform", e.transform],
    ["Format", e.format === "cloudevents" ? "CloudEvents" : "Standard Webhooks"],
    ["In order", e.ordered ? "Yes, one after another" : ""],
    ["Rate limit", e.rate_limit ? `${e.rate_limit} per second` : ""],
    ["Headers", Object.keys(e.headers).sort().join(", ")],
    ["Authentication", e.auth === "none" ? "" : e.auth],
    ["Public keys", e.public_keys.join(" ")],
  ];
  return h("dl", { class: "settings" }, rows.filter(([, value]) => value).map(([term, value]) => h("div", {}, h("dt", { class: "soft" }, term), h("dd", { class: "break" }, value))));
}

export async function detail(main, id) {
  const path = `endpoints/${id}`;
  const [e, numbers] = await Promise.all([call("GET", path), call("GET", `${path}/stats`)]);
  const again = () => detail(main, id);
  const history = deliveries(e);
  async function change(verb, said, content) {
    await call("POST", `${path}:${verb}`, { ...content });
    say(said);
    await again();
  }
  const buttons = e.archived_at ? [action("Restore", () => change("restore", "Restored"), "main")] : [
    h("a", { class: "button", href: `#/${id}/edit` }, "Edit"),
    e.enabled && action("Send test", async () => {
      await call("POST", `${path}:test`);
      say("A test event is on its way");
      await history.follow();
    }),
    e.enabled ? action("Disable", async () => {
      if (await confirm("Disable this endpoint?", "What waits for it is given up, and nothing is sent until it is enabled again.", "Disable")) {
        await change("disable", "Disabled");
      }
    }) : action("Enable", () => change("enable", "Enabled"), "main"),
    action("New secret", async () => {
      const overlap = await rotation();
      if (overlap === undefined) return;
      await secret((await call("POST", `${path}:rotate-secret`, { overlap })).secret);
      await again();
    }),
    e.enabled && action("Recover failed", async () => {
      const hours = await recovery();
      if (hours === undefined) return;
      await call("POST", `${path}:recover`, { since: new Date(Date.now() - hours * 3_600_000).toISOString() });
      say("Recovering");
      await history.follow();
    }),
    action("Archive", async () => {
      if (await confirm("Archive this endpoint?", "What waits for it is given up, and nothing is sent any more. It can be restored.", "Archive", "bad")) {
        await call("DELETE", path);
        say("Archived");
        await again();
      }
    }, "bad"),
  ];
  show(main,
    h("p", {}, h("a", { href: "#/" }, "← All endpoints")),
    h("div", { class: "row apart" }, h("h1", {}, name(e)), badge(e)),
    h("p", { class: "mono break" }, e.url),
    e.failing_since && e.enabled && h("p", { class: "soft" }, "Failing since ", time(e.failing_since), ". After five days it is disabled."),
    !e.enabled && e.disabled_at && h("p", { class: "soft" }, "Disabled since ", time(e.disabled_at), ". What happens meanwhile is not sent."),
    h("div", { class: "row actions" }, buttons),
    h("div", { class: "card" }, settings(e), stats(numbers)),
    history.view);
  await history.load();
}
