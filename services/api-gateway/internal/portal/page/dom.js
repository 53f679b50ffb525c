// Elements are made of names, attributes and texts: no text is ever read as markup.

const properties = new Set(["value", "checked", "disabled", "open", "hidden"]);

export function h(tag, attributes, ...children) {
  const e = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
    else if (properties.has(key)) e[key] = value;
    else e.setAttribute(key, value === true ? "" : value);
  }
  put(e, ...children);
  return e;
}

export function put(e, ...children) {
  e.append(...children.flat(Infinity).filter((c) => c !== undefined && c !== null && c !== false));
}

export function show(e, ...children) {
  e.replaceChildren();
  put(e, ...children);
}

let hide;

// say tells what was done, also to who does not see it.
export function say(text) {
  const e = document.getElementById("said");
  e.textContent = text;
  clearTimeout(hide);
  hide = setTimeout(() => { e.textContent = ""; }, 5000);
}

// busy keeps a button from being pressed twice, and shows what goes wrong beside it.
export function busy(button, work) {
  button.disabled = true;
  return work()
    .catch((err) => { if (!err.ended) say(err.message); })
    .finally(() => { button.disabled = false; });
}

export function action(text, work, kind) {
  const b = h("button", { type: "button", class: kind, onclick: () => busy(b, work) }, text);
  return b;
}

// ask opens a dialog and gives what the button that closed it says: undefined when it was dismissed. render gets a
// function that closes it with a value.
export function ask(title, render) {
  return new Promise((done) => {
    const d = h("dialog", { "aria-labelledby": "ask" });
    let answer;
    const close = (value) => { answer = value; d.close(); };
    d.addEventListener("close", () => { d.remove(); done(answer); });
    put(d, h("h2", { id: "ask" }, title), render(close));
    document.body.append(d);
    d.showModal();
  });
}

export function confirm(title, text, yes, kind) {
  return ask(title, (close) => [
    h("p", {}, text),
    h("div", { class: "row" },
      h("button", { type: "button", onclick: () => close(false) }, "Cancel"),
      h("button", { type: "button", class: kind ?? "main", onclick: () => close(true) }, yes)),
  ]);
}

export function time(text) {
  if (!text) return "";
  return h("time", { datetime: text }, new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" }));
}

export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
