import { call } from "./api.js";
import { busy, h, say, show } from "./dom.js";
import { name, secret } from "./endpoints.js";

const lines = (text) => text.split(/[\n,]/).map((s) => s.trim()).filter(Boolean);

function headers(text) {
  const out = {};
  for (const line of text.split("\n").map((s) => s.trim()).filter(Boolean)) {
    const at = line.indexOf(":");
    if (at < 1) throw Object.assign(new Error("A header has a name, a colon and a value."), { fields: [{ field: "headers", description: "one a line, such as X-Key: value" }] });
    out[line.slice(0, at).trim()] = line.slice(at + 1).trim();
  }
  return out;
}

function unheaders(map) { return Object.entries(map).sort().map(([key, value]) => `${key}: ${value}`).join("\n"); }

// form is for a new endpoint (before is null) or one that there is. send gets what is to be sent.
function form(main, before, title, back, send) {
  const was = before ?? { url: "", description: "", event_types: [], aggregate_types: [], filter: "", transform: "", format: "standard", headers: {}, rate_limit: null, ordered: false, auth: "none", asymmetric: false };
  const faults = new Map();
  const fields = {};
  function field(key, text, control, hint) {
    const fault = h("p", { class: "fault", id: `fault-${key}` });
    control.setAttribute("aria-describedby", `fault-${key}`);
    control.name = key;
    faults.set(key, [control, fault]);
    fields[key] = control;
    return h("div", {}, h("label", { class: control.type === "checkbox" ? "check" : null }, h("span", {}, text, hint && h("span", { class: "hint" }, ` ${hint}`)), control), fault);
  }
  const plain = { autocapitalize: "off", spellcheck: "false", autocomplete: "off" };
  const choice = (value, options) => { const s = h("select", {}, options.map(([v, text]) => h("option", { value: v }, text))); s.value = value; return s; };
  const kind = choice(before ? "keep" : "none", [before && ["keep", `leave as it is (${was.auth})`], ["none", "none"], ["basic", "user name and password"], ["bearer", "bearer token"]].filter(Boolean));
  const credentials = h("div", {});
  const user = h("input", { type: "text", ...plain }), password = h("input", { type: "password", autocomplete: "new-password" }), token = h("input", { type: "password", autocomplete: "new-password" });
  kind.addEventListener("change", () => {
    show(credentials, kind.value === "basic" && [field("auth.username", "User name", user), field("auth.password", "Password", password)],
      kind.value === "bearer" && field("auth.token", "Token", token));
  });

  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const submit = h("button", { class: "main", type: "submit" }, before ? "Save" : "Add endpoint");
  const body = h("form", { novalidate: true, onsubmit: (ev) => { ev.preventDefault(); busy(submit, save); } },
    problem,
    field("url", "URL", h("input", { type: "url", value: was.url, placeholder: "https://example.com/webhooks", ...plain })),
    field("description", "Name", h("input", { type: "text", value: was.description, maxlength: "500" }), "(what it is for)"),
    field("event_types", "Events", h("textarea", { class: "mono", value: was.event_types.join("\n"), placeholder: "task.*\n*.post_archive", ...plain }), "one pattern a line; none means all"),
    h("details", { open: Boolean(before && (was.filter || was.transform || was.ordered || was.rate_limit || Object.keys(was.headers).length > 0)) },
      h("summary", {}, "More settings"),
      field("aggregate_types", "Only of these types", h("input", { type: "text", value: was.aggregate_types.join(", "), placeholder: "task, employee", ...plain })),
      field("filter", "Filter", h("textarea", { class: "mono", value: was.filter, placeholder: "event.payload.changes.name.after == \"x\"", ...plain }), "CEL over event"),
      field("transform", "Transform", h("textarea", { class: "mono", value: was.transform, placeholder: "{\"id\": event.aggregate_id}", ...plain }), "CEL that gives the data to send"),
      field("format", "Format", choice(was.format, [["standard", "Standard Webhooks"], ["cloudevents", "CloudEvents 1.0"]])),
      field("headers", "Headers", h("textarea", { class: "mono", value: unheaders(was.headers), placeholder: "X-Key: value", ...plain }), "one a line"),
      field("rate_limit", "At most per second", h("input", { type: "number", min: "1", value: was.rate_limit ?? "", placeholder: "no limit" })),
      field("auth", "Authentication", kind), credentials,
      field("ordered", "Strictly in order: a failing delivery holds up those behind it", h("input", { type: "checkbox", checked: was.ordered })),
      field("asymmetric", "Sign with Ed25519 as well", h("input", { type: "checkbox", checked: was.asymmetric }))),
    h("div", { class: "row" }, submit, h("a", { class: "button", href: back }, "Cancel")));

  function content() {
    const now = {
      url: fields.url.value.trim(), description: fields.description.value.trim(), event_types: lines(fields.event_types.value),
      aggregate_types: lines(fields.aggregate_types.value), filter: fields.filter.value.trim(), transform: fields.transform.value.trim(),
      format: fields.format.value, headers: headers(fields.headers.value), rate_limit: fields.rate_limit.value === "" ? null : Number(fields.rate_limit.value),
      ordered: fields.ordered.checked, asymmetric: fields.asymmetric.checked,
    };
    const out = {};
    for (const [key, value] of Object.entries(now)) { // what is as it was is not sent
      if (JSON.stringify(value) !== JSON.stringify(was[key])) out[key] = value;
    }
    if (JSON.stringify(Object.entries(now.headers).sort()) === JSON.stringify(Object.entries(was.headers).sort())) delete out.headers;
    const auth = { none: { kind: "none" }, basic: { kind: "basic", username: user.value, password: password.value }, bearer: { kind: "bearer", token: token.value } }[kind.value];
    if (auth && (before || kind.value !== "none")) out.auth = auth;
    return out;
  }

  async function save() {
    problem.hidden = true;
    for (const [control, fault] of faults.values()) {
      fault.textContent = "";
      control.removeAttribute("aria-invalid");
    }
    try {
      await send(content());
    } catch (err) {
      if (err.ended) throw err;
      let first;
      let unplaced = (err.fields ?? []).length === 0;
      for (const f of err.fields ?? []) {
        const [control, fault] = faults.get(f.field) ?? faults.get(f.field.replace(/[.[].*$/, "")) ?? [];
        if (!control) { unplaced = true; continue; }
        control.setAttribute("aria-invalid", "true");
        fault.textContent = `${fault.textContent} ${f.description}`.trim();
        control.closest("details")?.setAttribute("open", "");
        first ??= control;
      }
      problem.textContent = unplaced ? err.message : "Some fields cannot be saved as they are.";
      problem.hidden = false;
      (first ?? problem).focus();
      problem.scrollIntoView({ block: "nearest" });
    }
  }

  show(main, h("p", {}, h("a", { href: back }, "← Back")), h("h1", {}, title), body);
  fields.url.focus();
}

export async function create(main) {
  form(main, null, "Add endpoint", "#/", async (content) => {
    const made = await call("POST", "endpoints", content);
    await secret(made.secret);
    location.hash = `#/${made.endpoint.id}`;
  });
}

export async function edit(main, id) {
  const before = await call("GET", `endpoints/${id}`);
  form(main, before, `Edit ${name(before)}`, `#/${id}`, async (content) => {
    if (Object.keys(content).length > 0) await call("PATCH", `endpoints/${id}`, { ...content, version: before.version });
    say("Saved");
    location.hash = `#/${id}`;
  });
}
