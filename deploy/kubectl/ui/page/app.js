// The page of `kubectl localmodel ui`: wires the stream of the server to the matrix.

import { Details } from "./details.js";
import { Grid, same } from "./grid.js";
import { Store, total } from "./store.js";
import { makeView } from "./view.js";
import { STATES, counted, duration, number, rate, stateWord } from "./words.js";

const SEARCH_MS = 80;
// The view is made anew at most this often while messages arrive.
const VIEW_MS = 250;
const SILENT_MS = 15_000;
// The program asks the cluster every 5 seconds whether it answers.
const OLD_SECONDS = 15;

const at = (id) => document.getElementById(id);
const store = new Store();
const settings = {
  search: "",
  group: "",
  states: new Set(),
  sort: "name",
  order: "name",
  closed: new Set(),
};
// What the server says of its connection to the cluster.
let health = { state: "reading", errors: [], cluster: "", seen: 0, now: 0 };
let heardAt = Date.now();
let clockAhead = 0;
let serverGone = false;
let drawnFirst = false;

const details = new Details({
  panel: at("details"),
  store,
  onGo(place) {
    if (!grid.goTo(place)) {
      // The place is filtered out, or in a closed section.
      clearFilters();
      settings.closed.clear();
      showView();
      grid.goTo(place);
    }
    open(place);
  },
  onClose: closeDetails,
});
details.now = () => Date.now() + clockAhead;

const grid = new Grid({
  grid: at("grid"),
  head: at("head"),
  body: at("body"),
  store,
  onOpen(place) {
    if (place.section) toggle(place.section);
    else if (place.node || place.model) open(place);
  },
  onMove(place) {
    // The panel follows the active cell once it is open.
    if (details.place !== null && (place.node || place.model || place.section)) open(place);
  },
});

function open(place) {
  if (details.place !== null && same(details.place, place)) return;
  grid.open(place);
  details.show({ ...place });
}

function closeDetails() {
  grid.open(null);
  details.show(null);
  grid.focus();
}

function toggle(section) {
  if (!settings.closed.delete(section.name)) settings.closed.add(section.name);
  showView();
}

// The view.

let viewTimer = 0;

function showSoon() {
  if (!viewTimer) viewTimer = setTimeout(showView, VIEW_MS);
}

function showView() {
  clearTimeout(viewTimer);
  viewTimer = 0;
  const view = makeView(store, settings);
  grid.show(view);
  const empty = at("empty");
  empty.hidden = view.rows.length > 0 && view.columns.length > 0;
  if (!empty.hidden) empty.textContent = emptyText();
  drawSummary();
  drawStates();
  drawGroups();
}

function emptyText() {
  if (!drawnFirst) return "Reading the cluster…";
  if (store.nodes.size === 0 && store.models.size === 0) {
    return "There are no groups and no caches yet. Make a LocalModelNodeGroup and a LocalModelCache.";
  }
  if (store.nodes.size === 0) return "No node is in a group yet.";
  if (store.models.size === 0) return "There is no cache yet. Make a LocalModelCache.";
  return "Nothing matches the search and the filters. Esc clears them.";
}

function drawSummary() {
  let speed = 0;
  let last = 0;
  for (const node of store.nodes.values()) {
    for (const extra of node.extra.values()) {
      speed += extra.rate ?? 0;
      last = Math.max(last, extra.eta ?? 0);
    }
  }
  const all = total(store.counts);
  const parts = [
    counted(store.nodes.size, "node"),
    counted(store.models.size, "model"),
    `${number(store.counts.A ?? 0)} of ${number(all)} copies available`,
  ];
  if (store.counts.D) {
    parts.push(`${number(store.counts.D)} downloading${speed ? ` at ${rate(speed)}` : ""}`);
  }
  const left = last - details.now() / 1000;
  if (left > 0) parts.push(`done in about ${duration(left)}`);
  at("summary").textContent = drawnFirst ? parts.join(" · ") : "";
}

const chips = new Map();

function drawStates() {
  for (const letter of STATES) {
    let chip = chips.get(letter);
    if (!chip) {
      chip = document.createElement("button");
      chip.type = "button";
      chip.className = "chip";
      chip.dataset.state = letter;
      const swatch = document.createElement("span");
      swatch.className = `swatch s s${letter}`;
      swatch.textContent = letter;
      swatch.setAttribute("aria-hidden", "true");
      chip.append(swatch, document.createElement("span"));
      chip.addEventListener("click", () => {
        if (!settings.states.delete(letter)) settings.states.add(letter);
        showView();
      });
      chips.set(letter, chip);
      at("states").append(chip);
    }
    const count = store.counts[letter] ?? 0;
    const text = `${stateWord(letter)} ${number(count)}`;
    if (chip.lastChild.textContent !== text) chip.lastChild.textContent = text;
    chip.setAttribute("aria-pressed", String(settings.states.has(letter)));
    chip.classList.toggle("none", count === 0);
  }
}

let groupsDrawn = "";

function drawGroups() {
  const names = [...store.groups.keys()].sort();
  if (groupsDrawn === JSON.stringify(names)) return;
  groupsDrawn = JSON.stringify(names);
  const select = at("group");
  select.replaceChildren(new Option("all", ""), ...names.map((name) => new Option(name, name)));
  if (!names.includes(settings.group)) settings.group = "";
  select.value = settings.group;
}

function clearFilters() {
  settings.search = "";
  settings.group = "";
  settings.states.clear();
  at("search").value = "";
  at("group").value = "";
}

// The connection.

function drawLink() {
  const link = at("link");
  const trouble = at("trouble");
  const silent = serverGone || Date.now() - heardAt > SILENT_MS;
  const age = (Date.now() - heardAt) / 1000 + (health.now - health.seen);
  const old = health.state === "live" && age > OLD_SECONDS;
  const state = silent ? "gone" : old ? "broken" : health.state;
  const words = {
    reading: "Reading the cluster…",
    live: "Live",
    broken: `Not connected · data ${duration(age)} old`,
    partly: "Live, with gaps",
    gone: `Stopped · data ${duration(age)} old`,
  };
  link.dataset.state = state;
  if (link.textContent !== words[state]) link.textContent = words[state];
  const errors = silent
    ? ["The program `kubectl localmodel ui` does not answer. If it was stopped, start it again and use the new address."]
    : health.errors;
  trouble.hidden = errors.length === 0;
  const text = errors.join("\n");
  if (trouble.textContent !== text) trouble.textContent = text;
  at("cluster").textContent = health.cluster;
}

function listen() {
  const stream = new EventSource("events");
  stream.addEventListener("health", (event) => {
    heardAt = Date.now();
    serverGone = false;
    health = JSON.parse(event.data);
    clockAhead = health.now * 1000 - heardAt;
    document.title = `localmodel · ${health.cluster}`;
    drawLink();
  });
  stream.addEventListener("message", (event) => {
    const message = JSON.parse(event.data);
    const touched = store.apply(message);
    if (message.full) {
      drawnFirst = true;
      showView();
      // After the frame that shows it.
      requestAnimationFrame(() => setTimeout(() => performance.mark("matrix-drawn")));
    } else {
      grid.schedule();
      showSoon();
    }
    details.update(touched);
  });
  stream.addEventListener("error", () => {
    serverGone = true;
    drawLink();
    if (stream.readyState !== EventSource.CLOSED) return;
    // Refused, for example because too many pages are open. The browser does not try again.
    setTimeout(listen, 5000);
  });
}

// The tools.

let searchTimer = 0;
at("search").addEventListener("input", (event) => {
  settings.search = event.target.value;
  clearTimeout(searchTimer);
  searchTimer = setTimeout(showView, SEARCH_MS);
});
for (const [id, name] of [["group", "group"], ["sort", "sort"], ["order", "order"]]) {
  at(id).addEventListener("change", (event) => {
    settings[name] = event.target.value;
    showView();
  });
}
at("search").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" && event.key !== "ArrowDown") return;
  event.preventDefault();
  clearTimeout(searchTimer);
  showView();
  grid.goTo(grid.place({ row: 2, column: 1 }));
  grid.focus();
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  // A letter in a list of choices chooses; a slash does nothing there.
  const writing = event.target.matches?.("input");
  const typing = writing || event.target.matches?.("select");
  if (event.key === "Escape") {
    if (details.place !== null) closeDetails();
    else {
      clearFilters();
      showView();
      grid.focus();
    }
  } else if (event.key === "/" && !writing) {
    event.preventDefault();
    at("search").focus();
    at("search").select();
  } else if ((event.key === "n" || event.key === "N") && !typing) {
    const step = event.key === "n" ? 1 : -1;
    grid.next((node, model) => store.letter(node, model) === "F", step);
  } else return;
  event.stopPropagation();
});

setInterval(() => {
  drawLink();
  drawSummary();
}, 1000);
showView();
drawLink();
listen();
