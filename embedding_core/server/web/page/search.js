// The search page. Everything that comes from a table is put in as text, never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const PASSAGES_AROUND = 4;
const TOKEN = "embedlake-token";
const THUMBS = {
  relevant: "M7 21V10l4-8a2 2 0 0 1 3 2l-1 5h6a2 2 0 0 1 2 2.4l-1.5 8A2 2 0 0 1 17.500 21zM3 10h4v11H3z",
  irrelevant: "M7 3v11l4 8a2 2 0 0 0 3-2l-1-5h6a2 2 0 0 0 2-2.4l-1.500-8A2 2 0 0 0 17.500 3zM3 3h4v11H3z",
};
const number = new Intl.NumberFormat("en");

let tables = [];
let table = null; // what the server says of the table that is asked
let broken = ""; // tables that cannot answer, and why
let asked = null; // stops the request under way when another is made

// Elements

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

function icon(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

// A part of a text with its marks; positions count characters, not JavaScript's halves of them.
function marked(text, marks, from, to) {
  const characters = Array.from(text);
  const cut = (start, end) => characters.slice(Math.max(start, from), Math.min(end, to)).join("");
  const shown = element("span", { class: "quoted", dir: "auto" });
  let end = from;
  if (from > 0) shown.append("… ");
  for (const [start, stop] of marks) {
    if (stop <= from || start >= to) continue;
    shown.append(cut(end, start), element("mark", {}, cut(start, stop)));
    end = stop;
  }
  shown.append(cut(end, to));
  if (to < characters.length) shown.append(" …");
  return shown;
}

// The server

async function call(path, body, signal) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  const options = { method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer");
  }
  const answer = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (response.status === 401) askForToken(Boolean(token));
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

const pathOf = (name, action = "") => `/api/tables/${encodeURIComponent(name)}${action}`;

function askForToken(wasWrong) {
  sessionStorage.removeItem(TOKEN);
  $("why").textContent = wasWrong ? "That is not the token." : "This server asks for a token.";
  $("entry").hidden = false;
  $("token").focus();
}

// What is asked: the controls, the address of the page

function operatorsOf(column) {
  const words = { "<": "below", "<=": "at most", ">": "above", ">=": "at least", "=": "is", "!=": "is not", in: "is one of", "not in": "is none of" };
  return column.operators.map((operator) => element("option", { value: operator }, words[operator] ?? operator));
}

const takesList = (operator) => operator === "in" || operator === "not in";

function valueInput(column, operator, value) {
  if (operator === "is missing" || operator === "is there") return null;
  const label = `Value of ${column.name}`;
  if (column.type === "bool") {
    const options = ["true", "false"].map((word) => element("option", { selected: String(value) === word }, word));
    return element("select", { class: "value", "aria-label": label }, ...options);
  }
  const kinds = { int: "number", float: "number", timestamp: "date" };
  const type = takesList(operator) ? "text" : kinds[column.type] ?? "text";
  const input = element("input", { class: "value", type, "aria-label": label, placeholder: takesList(operator) ? "a, b, c" : "" });
  if (type === "number") input.step = "any";
  if (type === "text" && !takesList(operator) && column.values.length) {
    const list = `values-${table.columns.indexOf(column)}`;
    input.setAttribute("list", list);
    if (!$(list)) {
      const options = column.values.map((example) => element("option", { value: example }));
      document.body.append(element("datalist", { id: list }, ...options));
    }
  }
  if (type === "date" && value && !/^\d{4}-\d\d-\d\d$/.test(value)) input.type = "text";  // a time of day
  input.value = Array.isArray(value) ? value.join(", ") : value ?? "";
  return input;
}

function addFilter(filter = {}) {
  if (!table || !table.columns.length) return;
  const names = table.columns.map((column) => element("option", {}, column.name));
  const column = element("select", { "aria-label": "Column", onchange: () => choose({}) }, ...names);
  if (filter.column) column.value = filter.column;
  const operator = element("select", { "aria-label": "Comparison", onchange: () => choose({ operator: operator.value }) });
  const rest = element("span");
  const remove = element("button", { type: "button", class: "quiet", "aria-label": "Remove this filter" }, "Remove");
  const row = element("li", {}, column, operator, rest, remove);
  remove.addEventListener("click", () => {
    row.remove();
    $("add").focus();
    if ($("query").value.trim()) ask();
  });
  function choose({ operator: wanted, value }) {
    const described = table.columns.find(({ name }) => name === column.value) ?? table.columns[0];
    operator.replaceChildren(...operatorsOf(described));
    if (wanted) operator.value = wanted;
    rest.replaceChildren(...[valueInput(described, operator.value, value)].filter(Boolean));
    row.described = described;
  }
  choose(filter);
  $("filters").append(row);
  if (!filter.column) column.focus();
}

function filterOf(row) {
  const [column, operator] = row.querySelectorAll("select");
  const input = row.querySelector(".value");
  const filter = { column: column.value, operator: operator.value };
  if (!input) return filter;
  if (input.value.trim() === "") return null;
  // Numbers go as they are written: JavaScript would round those beyond 2^53.
  if (row.described.type === "bool") filter.value = input.value === "true";
  else if (takesList(operator.value)) filter.value = input.value.split(",").map((part) => part.trim());
  else filter.value = input.value;
  return filter;
}

function question() {
  return {
    query: $("query").value.trim(),
    k: Number($("k").value),
    filters: Array.from($("filters").children, filterOf).filter(Boolean),
    hybrid: $("hybrid").checked,
  };
}

function remember(asking, other) {
  const parameters = new URLSearchParams();
  if (tables.length > 1) parameters.set("table", table.table);
  if (asking.query) parameters.set("q", asking.query);
  if (asking.k !== 10) parameters.set("k", asking.k);
  if (asking.hybrid) parameters.set("hybrid", "1");
  if (other) parameters.set("with", other);
  if (asking.filters.length) parameters.set("filters", JSON.stringify(asking.filters));
  const address = `?${parameters}`;
  if (address !== location.search) history.pushState(null, "", address);
}

function recall() {
  const parameters = new URLSearchParams(location.search);
  const name = parameters.get("table");
  choose(name);
  $("query").value = parameters.get("q") ?? "";
  $("k").value = ["5", "20", "50"].includes(parameters.get("k")) ? parameters.get("k") : "10";
  $("hybrid").checked = parameters.get("hybrid") === "1" && !$("hybrids").hidden;
  const other = parameters.get("with") ?? "";
  $("other").value = Array.from($("other").options).some(({ value }) => value === other) ? other : "";
  $("filters").replaceChildren();
  let filters = [];
  try {
    filters = JSON.parse(parameters.get("filters") ?? "[]");
  } catch {
    // somebody changed the address: without filters then
  }
  const known = (filter) => table?.columns.some(({ name }) => name === filter?.column);
  for (const filter of Array.isArray(filters) ? filters.filter(known) : []) addFilter(filter);
  $("results").replaceChildren();
  say("");
  // A link to a table that is gone is not answered by another one.
  if (name && name !== table?.table) say(`No table ${name} answers here.`, true);
  else if ($("query").value) ask();
}

// The table

function choose(name) {
  table = tables.find((known) => known.table === name) ?? tables[0] ?? null;
  $("tables").hidden = tables.length < 2;
  $("table").replaceChildren(...tables.map((known) => element("option", { selected: known === table }, known.table)));
  document.querySelectorAll("datalist").forEach((list) => list.remove());
  if (!table) return;
  const [served, ...others] = table.spaces;
  describe(table, served.model, served.space_id);
  $("hybrids").hidden = !table.hybrid;
  $("add").hidden = !table.columns.length;
  const askable = others.filter(({ filled_share }) => filled_share > 0);
  $("others").hidden = !askable.length;
  const options = askable.map((space) =>
    element("option", { value: space.column }, `${called(space.model)}, ${space.dim} dimensions, ${space.space_id.slice(0, 8)} (${space.state})`));
  $("other").replaceChildren(element("option", { value: "" }, "no other space"), ...options);
}

// A model by its name, or by the end of its path.
function called(model) {
  const parts = model.split("/");
  return parts.length > 2 ? `…/${parts.slice(-2).join("/")}` : model;
}

// After a promote or a rollback other spaces can be compared with.
async function followRelease(answer) {
  if (answer.column !== "vector" || answer.space_id === table.spaces[0].space_id) return;
  const { notice } = answer;
  await refresh(answer.table);
  describe({ ...table, version: answer.version, notice }, answer.model, answer.space_id);
}

// The tables and spaces that there are now, to choose from.
async function refresh(name) {
  await loadTables().catch(() => {});
  choose(name);
}

function describe({ table: name, rows, version, notice }, model, space) {
  const size = rows === undefined ? "" : ` · ${number.format(rows)} passages`;
  $("about").textContent = `${name}${size} · version ${version} · in service: ${called(model)}, space ${space.slice(0, 12)}`;
  notify(notice);
}

function notify(notice) {
  $("notice").textContent = [notice, broken].filter(Boolean).join("\n");
  $("notice").hidden = !$("notice").textContent;
}

async function loadTables() {
  const { tables: listed, problems } = await call("/api/tables");
  tables = listed;
  broken = Object.entries(problems).map(([name, problem]) => `${name}: ${problem}`).join("\n");
  notify();
  $("entry").hidden = true;
}

// Answers

function say(text, isBad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", isBad);
}

const milliseconds = (seconds) => (seconds < 0.0995 ? (seconds * 1000).toFixed(1) : number.format(Math.round(seconds * 1000)));

function timing({ model, search, total }) {
  return `${milliseconds(total)} ms (model ${milliseconds(model)}, table ${milliseconds(search)})`;
}

async function ask() {
  const asking = question();
  if (!table) await refresh();
  if (!table) return;
  if (!asking.query) {
    $("query").focus();
    return;
  }
  const other = $("other").value;
  remember(asking, other);
  asked?.abort();
  asked = new AbortController();
  say("Searching …");
  $("results").setAttribute("aria-busy", "true");
  try {
    if (other) {
      const body = { ...asking, columns: ["vector", other] };
      showComparison(await call(pathOf(table.table, "/compare"), body, asked.signal), asking.query);
    } else {
      showAnswer(await call(pathOf(table.table, "/search"), asking, asked.signal), asking.query);
    }
    $("results").removeAttribute("aria-busy");
  } catch (error) {
    if (error.name === "AbortError") return;
    $("results").removeAttribute("aria-busy");
    $("results").replaceChildren();
    say(error.message, true);
    if (other) await refresh(table.table);  // the other space may have been promoted or retired
  }
}

function showAnswer(answer, query) {
  document.body.classList.remove("wide");
  describe({ ...table, version: answer.version, notice: answer.notice }, answer.model, answer.space_id);
  followRelease(answer);
  const n = answer.hits.length;
  say(n ? `${n} ${n === 1 ? "hit" : "hits"} in ${timing(answer.seconds)}` : `Nothing found, after ${timing(answer.seconds)}`);
  const empty = element("p", { class: "empty" }, "No passage fits. Ask in other words, or with fewer filters.");
  $("results").replaceChildren(n ? hitList(answer, query, "h2") : empty);
}

function showComparison({ answers, moved, shared }, query) {
  document.body.classList.add("wide");
  const [first, second] = answers;
  describe({ ...table, version: first.version, notice: first.notice }, first.model, first.space_id);
  followRelease(first);
  const seconds = Math.max(first.seconds.total, second.seconds.total);
  const count = (movement) => moved[1].filter((line) => line.movement === movement).length;
  say(`${shared} of ${second.hits.length} hits are in both spaces; ${count("up")} moved up, ${count("down")} down · ${milliseconds(seconds)} ms`);
  const sides = answers.map((answer, side) => {
    const space = table.spaces.find(({ column }) => column === answer.column);
    const state = side ? space?.state ?? "" : "in service";
    const dim = space?.space_id === answer.space_id ? `${space.dim} dimensions · ` : "";
    return element("section", { "aria-label": `Hits of ${answer.model}, ${state}` },
      element("h2", { title: answer.model }, called(answer.model)),
      element("p", { class: "muted" }, `${state} · ${dim}space ${answer.space_id.slice(0, 12)}`),
      hitList(answer, query, "h3", moved[side].map((line) => badge(line, side))));
  });
  $("results").replaceChildren(element("div", { class: "sides" }, ...sides));
}

function badge({ rank, other_rank: other, movement }, side) {
  if (movement === "only here") {
    return element("span", { class: `moved ${side ? "new" : "gone"}` }, side ? "new" : "gone");
  }
  const [before, after] = side ? [other, rank] : [rank, other];
  const words = { same: `stays at ${rank}`, up: `▲ from ${before} to ${after}`, down: `▼ from ${before} to ${after}` };
  return element("span", { class: `moved ${movement}` }, words[movement]);
}

function hitList(answer, query, heading, badges = []) {
  const best = Math.max(...answer.hits.map(({ score }) => score), 1e-9);
  const items = answer.hits.map((hit, index) => hitItem(answer, hit, query, heading, best, badges[index] ?? null));
  return element("ol", { class: "hits" }, ...items);
}

function hitItem(answer, hit, query, heading, best, moved) {
  const title = typeof hit.metadata.title === "string" && hit.metadata.title.trim() ? hit.metadata.title : hit.doc_id;
  const bar = element("b");
  bar.style.width = `${Math.max(0, (100 * hit.score) / best)}%`;
  const score = element("span", { class: "score", title: "Score" }, element("i", { "aria-hidden": "true" }, bar), hit.score.toFixed(3));
  const text = element("p", { class: "snippet" }, marked(hit.text, hit.marks, ...hit.snippet));
  const open = element("button", { type: "button", class: "open", "aria-expanded": "false" }, "In its document");
  const item = element("li", { tabindex: "-1", "data-document": hit.doc_id, "aria-label": `Hit ${hit.rank}: ${title}` },
    element("div", { class: "head" },
      element("span", { class: "rank", "aria-hidden": "true" }, String(hit.rank)),
      element(heading, { class: "quoted", dir: "auto" }, title), moved, score),
    element("div", { class: "below" }, text, facts(hit, title),
      element("div", { class: "actions" }, open, ...thumbs(answer, hit, query))));
  open.addEventListener("click", () => toggleDocument(item, open, answer, hit, query));
  return item;
}

function facts(hit, title) {
  const pairs = Object.entries(hit.metadata).filter(([name, value]) => value !== null && value !== "" && !(name === "title" && value === title));
  if (title !== hit.doc_id) pairs.unshift(["document", hit.doc_id]);
  pairs.push(["file", hit.source_uri.split("/").pop() || hit.source_uri], ["passage", hit.chunk_index + 1]);
  const shown = pairs.map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", { title: name === "file" ? hit.source_uri : null }, shortened(value))));
  return element("dl", { class: "facts" }, ...shown);
}

// A value as a line: a midnight in UTC is a date, a list or a record is its JSON.
function shortened(value) {
  const said = typeof value === "object" ? JSON.stringify(value) : String(value);
  const text = said.replace(/^(\d{4}-\d\d-\d\d)T00:00:00Z$/, "$1");
  const characters = Array.from(text);
  return characters.length > 120 ? `${characters.slice(0, 119).join("")}…` : text;
}

// Documents

async function toggleDocument(item, open, answer, hit, query) {
  const shown = item.querySelector(".document");
  open.setAttribute("aria-expanded", String(!shown));
  if (shown) {
    shown.remove();
    return;
  }
  const view = element("div", { class: "document", tabindex: "0", role: "region", "aria-label": `Document ${hit.doc_id}` }, element("p", { class: "muted" }, "Reading …"));
  item.querySelector(".below").append(view);
  tell(answer, hit, query, "click");
  try {
    const first = Math.max(0, hit.chunk_index - PASSAGES_AROUND);
    await fillDocument(view, answer, hit, first, hit.chunk_index + PASSAGES_AROUND);
    const here = view.querySelector(".here");
    if (here) view.scrollTop = here.offsetTop - view.offsetTop - 48;
  } catch (error) {
    view.replaceChildren(element("p", { class: "bad" }, error.message));
  }
}

async function fillDocument(view, answer, hit, first, last) {
  const parameters = new URLSearchParams({ doc_id: hit.doc_id, source_uri: hit.source_uri, first, limit: last - first + 1 });
  const { document: found } = await call(`${pathOf(answer.table, "/document")}?${parameters}`);
  const here = found.passages.find((passage) => passage.chunk_id === hit.chunk_id);
  const parts = [];
  let end = 0;
  for (const passage of found.passages) {
    // What two passages share stands once; the hit stands whole.
    const isHere = passage === here;
    const characters = Array.from(passage.text);
    const from = isHere ? 0 : Math.max(0, end - passage.char_start);
    const isBefore = here && passage.chunk_index < here.chunk_index;
    const to = isBefore ? characters.length - Math.max(0, passage.char_end - here.char_start) : characters.length;
    end = Math.max(end, passage.char_end);
    if (from >= to) continue;
    const shown = isHere ? marked(passage.text, hit.marks, 0, to)
      : element("span", { class: "quoted", dir: "auto" }, characters.slice(from, to).join(""));
    parts.push(element("p", { class: isHere ? "here" : null }, shown));
  }
  const more = (label, from, to) =>
    element("button", { type: "button", class: "quiet more", onclick: () => fillDocument(view, answer, hit, from, to) }, label);
  if (first > 0) parts.unshift(more("Earlier passages", Math.max(0, first - 20), last));
  if (last + 1 < found.n_passages) parts.push(more("Later passages", first, last + 20));
  view.replaceChildren(...parts);
}

// Feedback

function session() {
  const name = "embedlake-session";
  if (!sessionStorage.getItem(name)) {
    const bytes = crypto.getRandomValues(new Uint8Array(8));
    sessionStorage.setItem(name, Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(""));
  }
  return sessionStorage.getItem(name);
}

async function tell(answer, hit, query, signal) {
  if (!table?.feedback) return;
  const { doc_id, source_uri, chunk_id, rank } = hit;
  const body = { table: answer.table, query, doc_id, source_uri, chunk_id, rank, signal, space_id: answer.space_id, session: session() };
  try {
    await call("/feedback", body);
  } catch (error) {
    say(`The feedback was not stored: ${error.message}`, true);
    throw error;
  }
}

function thumbs(answer, hit, query) {
  if (!table.feedback) return [];
  const buttons = Object.entries({ relevant: "Relevant", irrelevant: "Not relevant" }).map(([signal, label]) => {
    const button = element("button", { type: "button", "aria-pressed": "false", "data-signal": signal }, icon(THUMBS[signal]), element("span", { class: "label" }, label));
    button.addEventListener("click", async () => {
      await tell(answer, hit, query, signal);
      buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    });
    return button;
  });
  return buttons;
}

// Keys

function step(by) {
  const hits = Array.from(document.querySelectorAll("ol.hits > li"));
  const at = hits.indexOf(document.activeElement.closest?.("ol.hits > li"));
  const next = hits[Math.max(0, Math.min(hits.length - 1, at + by))];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isTyping = event.target.matches?.("input:not([type=checkbox]), select, textarea");
  const hit = event.target.closest?.("ol.hits > li");
  if (event.key === "Escape" && hit) {
    const open = hit.querySelector(".open");
    if (hit.querySelector(".document")) open.click(), hit.focus();
    else $("query").focus();
  } else if (isTyping) {
    return;
  } else if (event.key === "/") {
    $("query").focus();
    $("query").select();
  } else if (event.key === "j" || event.key === "k") {
    step(event.key === "j" ? 1 : -1);
  } else if (event.key === "Enter" && event.target === hit) {
    hit.querySelector(".open").click();
  } else {
    return;
  }
  event.preventDefault();
});

// The page

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
$("entry").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, $("token").value);
  $("token").value = "";
  start();
});
$("add").addEventListener("click", () => addFilter());
$("table").addEventListener("change", () => {
  choose($("table").value);
  $("filters").replaceChildren();
  $("results").replaceChildren();
  if ($("query").value.trim()) ask();
});
for (const id of ["k", "hybrid", "other"]) {
  $(id).addEventListener("change", () => $("query").value.trim() && ask());
}
addEventListener("popstate", recall);

async function start() {
  try {
    await loadTables();
    recall();
  } catch (error) {
    say(error.message, true);
  }
}
start();
