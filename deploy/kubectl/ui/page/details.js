// The panel beside the matrix: why a copy, a model, a node or a group is as it is; or all problems.

import { described } from "./grid.js";
import { total } from "./store.js";
import { STATES, copies, counted, duration, number, stateWord } from "./words.js";
import { problems } from "./view.js";

const MOST_PROBLEMS = 50;
const AGAIN_MS = 1000;
// Time alone changes an answer: an agent or a hook that should have answered by now.
const PERIOD_MS = 12000;
// While a person moves through cells, only that where the person stays is asked for.
const STAY_MS = 120;
const MARKS = {
  ok: ["✓", "ok"],
  waiting: ["…", "waiting"],
  broken: ["✗", "broken"],
  unknown: ["?", "unknown"],
};

export class Details {
  // onGo(place): show a place in the matrix. onClose: Esc or the button.
  constructor({ panel, store, onGo, onClose }) {
    Object.assign(this, { panel, store, onGo, onClose });
    this.place = null;
    this.now = () => Date.now();
    this.asked = 0;
    this.timer = 0;
    panel.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.onClose();
    });
    setInterval(() => this.#tick(), 1000);
    setInterval(() => {
      if (document.visibilityState === "visible") this.#ask();
    }, PERIOD_MS);
  }

  // Show a place; null: all problems.
  show(place) {
    this.place = place;
    this.chain = null;
    this.panel.classList.toggle("open", place !== null);
    this.#draw();
    clearTimeout(this.timer);
    if (place !== null) this.timer = setTimeout(() => this.#ask(), STAY_MS);
  }

  // The store changed. touched: names of nodes, models and groups; null: all.
  update(touched) {
    if (this.place === null) {
      this.#draw();
      return;
    }
    const { node, model, section } = this.place;
    const names = [node?.name, model?.name, ...(section?.groups ?? [])].filter(Boolean);
    if (touched !== null && !names.some((name) => touched.has(name))) return;
    this.#refresh();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#ask(), AGAIN_MS);
  }

  // The objects of the store are new after a full message.
  #refresh() {
    const { node, model } = this.place;
    if (node) this.place.node = this.store.nodes.get(node.name) ?? node;
    if (model) this.place.model = this.store.models.get(model.name) ?? model;
    this.#draw();
  }

  async #ask() {
    const { node, model, section } = this.place ?? {};
    if (!node && !model && !section) return;
    const query = new URLSearchParams();
    if (model) query.set("model", model.name);
    if (node) query.set("node", node.name);
    if (section) query.set("groups", section.groups.join(","));
    const mine = ++this.asked;
    let answer;
    try {
      const response = await fetch(`why?${query}`);
      answer = response.ok ? await response.json() : { error: await response.text() };
    } catch {
      answer = { error: "The server of this page does not answer." };
    }
    if (mine !== this.asked || this.place === null) return;
    this.chain = answer;
    this.#draw();
  }

  #draw() {
    const text = JSON.stringify([this.#key(), this.chain, this.#heading()]);
    if (this.place !== null && text === this.drawn) return;
    this.drawn = text;
    const focused = this.panel.contains(document.activeElement);
    const inside = focused ? document.activeElement.dataset.at : undefined;
    const { scrollTop } = this.panel;
    this.panel.replaceChildren(...(this.place === null ? this.#overview() : this.#one()));
    this.panel.scrollTop = scrollTop;
    if (focused) (this.panel.querySelector(`[data-at="${inside}"]`) ?? this.panel).focus();
    this.#tick();
  }

  #key() {
    const { node, model, section } = this.place ?? {};
    return [node?.name, model?.name, section?.name];
  }

  // Title, subtitle, and the letter of the state.
  #heading() {
    const { node, model, section } = this.place ?? {};
    if (node && model) {
      const letter = this.store.letter(node, model);
      const extra = this.store.extra(node, model);
      return { title: model.name, under: `on ${node.name}`, letter, state: described(letter, extra), percent: extra?.percent };
    }
    const about = node ?? model ?? section;
    if (!about) return null;
    const counts = [...STATES].filter((letter) => about.counts[letter]);
    const state = counts.map((letter) => `${number(about.counts[letter])} ${stateWord(letter)}`);
    const of = node ? "node" : model ? "model" : "group";
    return {
      title: about.name || "no group",
      under: `${of}, ${copies(total(about.counts))}`,
      letter: counts[0] ?? "0",
      state: state.join(" · "),
    };
  }

  #one() {
    const heading = this.#heading();
    const close = button("×", "close", this.onClose);
    close.setAttribute("aria-label", "Close");
    const title = make("h2", "", heading.title);
    const badge = make("p", `badge s s${heading.letter === "." ? "0" : heading.letter}`, heading.state);
    if (heading.percent != null) badge.style.setProperty("--share", String(heading.percent / 100));
    const parts = [close, title, make("p", "under", heading.under), badge];
    const { chain } = this;
    if (chain === null) parts.push(make("p", "reading", "Reading…"));
    else if (chain.error) parts.push(make("p", "error", chain.error));
    else parts.push(...this.#links(chain.links), this.#facts(chain.facts));
    return parts;
  }

  // First what is wrong or waited for, then the chain that leads there.
  #links(links) {
    if (!links.length) return [];
    const cause =
      links.find((link) => link.state === "broken") ?? links.find((link) => link.state === "waiting");
    const list = make("ol", "chain");
    for (const link of links) list.append(this.#link(link, link === cause));
    return cause ? [this.#cause(cause), list] : [list];
  }

  #cause(link) {
    const box = make("div", `cause ${link.state}`);
    box.append(make("p", "words", link.words));
    if (link.next) box.append(make("p", "next", link.next));
    if (link.since) box.append(since(link.since));
    return box;
  }

  #link(link, isCause) {
    const [mark, word] = MARKS[link.state] ?? ["?", link.state];
    const item = make("li", link.state);
    const sign = make("span", "mark", mark);
    sign.setAttribute("role", "img");
    sign.setAttribute("aria-label", word);
    const body = make("div", "");
    const name = make("p", "link-name", link.name);
    if (link.reason) name.append(make("span", "reason", link.reason));
    body.append(name);
    if (!isCause) {
      body.append(make("p", "words", link.words));
      if (link.next) body.append(make("p", "next", link.next));
    }
    item.append(sign, body);
    return item;
  }

  #facts(facts) {
    const list = make("dl", "facts");
    for (const [name, value, kind] of facts) {
      const described = make("dd", "", kind === "time" ? undefined : value);
      if (kind === "time") {
        const time = make("time", "at");
        time.dateTime = value;
        time.title = value;
        described.append(time);
      }
      list.append(make("dt", "", name), described);
    }
    return list;
  }

  #overview() {
    const found = problems(this.store);
    const title = make("h2", "", found.length ? "Problems" : "No problems");
    if (!found.length) {
      const text = "Every node and group is ready, and no download has failed.";
      return [title, make("p", "under", text), make("p", "under", "Choose a cell to see why it is as it is.")];
    }
    const list = make("ul", "problems");
    found.slice(0, MOST_PROBLEMS).forEach((problem, index) => {
      const where = problem.nodes.length > 1 ? counted(problem.nodes.length, "node") : problem.nodes[0];
      const words = problem.title === where ? "" : where;
      const item = make("li", "");
      const target = button("", "problem", () => this.onGo(this.#placeOf(problem)));
      target.dataset.at = String(index);
      target.append(
        make("span", `swatch s s${problem.letter}`, problem.letter),
        make("span", "title", problem.title),
        make("span", "reason", problem.reason),
        make("span", "where", words ?? ""),
      );
      item.append(target);
      list.append(item);
    });
    const parts = [title, list];
    const more = found.length - MOST_PROBLEMS;
    if (more > 0) parts.push(make("p", "under", `and ${number(more)} more`));
    return parts;
  }

  #placeOf({ nodes, model, title }) {
    const node = this.store.nodes.get(nodes[0]);
    if (model) return { node, model: this.store.models.get(model.name) };
    return node ? { node } : { section: { name: title.replace(/^group /, "") } };
  }

  // Times count on without a message.
  #tick() {
    for (const time of this.panel.querySelectorAll("time")) {
      const ago = (this.now() - Date.parse(time.dateTime)) / 1000;
      const span = duration(Math.abs(ago));
      const text = time.className === "since" ? `for ${span}` : ago < 0 ? `in ${span}` : `${span} ago`;
      if (time.textContent !== text) time.textContent = text;
    }
  }
}

function since(text) {
  const time = make("time", "since");
  time.dateTime = text;
  return time;
}

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function button(text, className, action) {
  const made = make("button", className, text);
  made.type = "button";
  made.addEventListener("click", action);
  return made;
}
