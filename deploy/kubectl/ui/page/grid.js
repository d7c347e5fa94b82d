// The matrix: a virtual grid. Only the rows and columns in sight have elements, so their number is
// bounded by the size of the window. Follows the ARIA pattern of a grid with a roving tabindex.

import { total } from "./store.js";
import { NOT_PLANNED, STATES, bytes, copies, counted, number, rate, stateWord } from "./words.js";

const ROW = 26;
const SECTION = 34;
const NARROW_CELL = 26;
// From this width on, a cell has room for the word of its state.
const WORD_CELL = 112;
const WIDEST_CELL = 190;
const OVERSCAN = 4;

export class Grid {
  // onOpen(place): Enter or a click; onMove(place): the active cell changed.
  // A place is {section}, {node}, {model} or {node, model}: what a cell is about.
  constructor({ grid, head, body, store, onOpen, onMove }) {
    Object.assign(this, { grid, head, body, store, onOpen, onMove });
    this.view = { rows: [], columns: [] };
    this.tops = [0];
    // The active cell: row 0 is the head, column 0 has the names.
    this.active = { row: 0, column: 0 };
    this.rows = new Map();
    this.free = [];
    this.opened = null;
    this.scheduled = false;
    this.corner = element("div", "cell corner", "columnheader");
    this.corner.setAttribute("aria-colindex", "1");
    this.head.append(this.corner);
    this.heads = [];
    grid.addEventListener("scroll", () => this.schedule(), { passive: true });
    grid.addEventListener("keydown", (event) => this.#key(event));
    grid.addEventListener("click", (event) => this.#click(event));
    // A tooltip for each cell would be work for cells that nobody points at.
    grid.addEventListener("pointerover", ({ target }) => {
      if (target.classList.contains("s")) target.title = target.ariaLabel;
    });
    grid.addEventListener("focusin", (event) => {
      if (event.target === grid) this.focus();
    });
    new ResizeObserver(() => this.#measure()).observe(grid);
  }

  // Show another view. The active cell stays on its node and model if they are still shown.
  show(view) {
    const place = this.place(this.active);
    const focused = this.grid.contains(document.activeElement);
    this.view = view;
    this.tops = [0];
    for (const row of view.rows) {
      this.tops.push(this.tops.at(-1) + (row.section ? SECTION : ROW));
    }
    this.rowOf = new Map();
    view.rows.forEach((row, index) => this.rowOf.set(row.section?.name ?? row.node.name, index));
    this.columnOf = new Map(view.columns.map((model, index) => [model.name, index]));
    this.active = this.#find(place) ?? this.#clamped(this.active);
    this.#measure();
    this.draw();
    if (focused) this.#focusActive();
  }

  #measure() {
    const style = getComputedStyle(this.grid);
    this.nameWidth = parseFloat(style.getPropertyValue("--name-width"));
    this.width = this.grid.clientWidth;
    this.height = this.grid.clientHeight;
    const room = this.width - this.nameWidth - 1;
    const columns = Math.max(1, this.view.columns.length);
    this.cellWidth = Math.max(NARROW_CELL, Math.min(WIDEST_CELL, Math.floor(room / columns)));
    // Between a letter and a word, a wider cell gains nothing.
    this.words = this.cellWidth >= WORD_CELL;
    if (!this.words) this.cellWidth = Math.min(this.cellWidth, 40);
    this.grid.classList.toggle("words", this.words);
    this.grid.style.setProperty("--cell-width", `${this.cellWidth}px`);
    const wide = this.nameWidth + this.cellWidth * this.view.columns.length;
    this.head.style.width = `${wide}px`;
    this.body.style.width = `${wide}px`;
    this.body.style.height = `${this.tops.at(-1)}px`;
    this.headHeight = this.head.offsetHeight;
    this.grid.setAttribute("aria-rowcount", String(this.view.rows.length + 1));
    this.grid.setAttribute("aria-colcount", String(this.view.columns.length + 1));
    this.schedule();
  }

  schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => this.draw());
  }

  // Draw what is in sight, and change only what differs from what is drawn.
  draw() {
    this.scheduled = false;
    const { scrollTop, scrollLeft } = this.grid;
    const columns = this.view.columns.length;
    const firstColumn = Math.max(0, Math.floor(scrollLeft / this.cellWidth) - OVERSCAN);
    const shown = Math.ceil((this.width - this.nameWidth) / this.cellWidth) + 2 * OVERSCAN;
    const lastColumn = Math.min(columns, firstColumn + Math.max(shown, 1));
    const firstRow = Math.max(0, this.#rowAt(scrollTop) - OVERSCAN);
    const lastRow = Math.min(
      this.view.rows.length,
      this.#rowAt(scrollTop + this.height - this.headHeight) + 1 + OVERSCAN,
    );
    const focused = this.grid.contains(document.activeElement);
    for (const [index, row] of this.rows) {
      if (index >= firstRow && index < lastRow) continue;
      this.rows.delete(index);
      row.element.hidden = true;
      this.free.push(row);
    }
    this.#drawHead(firstColumn, lastColumn);
    for (let index = firstRow; index < lastRow; index++) {
      let row = this.rows.get(index);
      if (!row) {
        row = this.free.pop() ?? this.#newRow();
        this.rows.set(index, row);
      }
      this.#drawRow(row, index, firstColumn, lastColumn);
    }
    for (const row of this.free.splice(2 * OVERSCAN)) row.element.remove();
    // An element that lost the focus by being hidden leaves it to the grid.
    if (focused && !this.#elementAt(this.active)) this.grid.focus({ preventScroll: true });
    this.grid.tabIndex = this.#elementAt(this.active) ? -1 : 0;
  }

  #rowAt(y) {
    let low = 0;
    let high = this.tops.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.tops[middle] <= y) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #newRow() {
    const row = { element: element("div", "row", "row"), name: null, cells: [] };
    row.name = element("div", "cell name", "rowheader");
    row.name.setAttribute("aria-colindex", "1");
    row.label = row.name.appendChild(element("span", "label"));
    row.note = row.name.appendChild(element("span", "note"));
    row.bar = row.name.appendChild(element("span", "bar"));
    row.element.append(row.name);
    this.body.append(row.element);
    return row;
  }

  #drawHead(first, last) {
    while (this.heads.length < last - first) {
      const cell = element("div", "cell model", "columnheader");
      cell.append(element("span", "label"), element("span", "count"));
      this.heads.push(cell);
      this.head.append(cell);
    }
    for (const cell of this.heads.splice(last - first)) cell.remove();
    this.heads.forEach((cell, offset) => {
      const column = first + offset;
      const model = this.view.columns[column];
      const failed = model.counts.F ?? 0;
      const text = [
        `${number(model.counts.A ?? 0)} of ${copies(total(model.counts))} available`,
        failed ? `${number(failed)} failed` : "",
      ].filter(Boolean).join(", ");
      set(cell, "class", `cell model${this.#mark(0, column + 1, { model })}`);
      set(cell, "aria-label", `${model.name}, ${text}`);
      set(cell, "title", `${model.name}\n${text}`);
      set(cell, "aria-colindex", String(column + 2));
      set(cell, "tabindex", this.#isActive(0, column + 1) ? "0" : "-1");
      set(cell, "style.left", `${this.nameWidth + column * this.cellWidth}px`);
      setText(cell.firstChild, model.name);
      setText(cell.lastChild, failed ? String(Math.min(failed, 999)) : "");
    });
    set(this.corner, "tabindex", this.#isActive(0, 0) ? "0" : "-1");
    set(this.corner, "class", `cell corner${this.#mark(0, 0, {})}`);
    setText(this.corner, `${number(this.view.columns.length)} models × ${number(this.view.rows.filter((row) => row.node).length)} nodes`);
  }

  #drawRow(row, index, first, last) {
    const { section, node } = this.view.rows[index];
    row.element.hidden = false;
    set(row.element, "style.transform", `translateY(${this.tops[index]}px)`);
    set(row.element, "aria-rowindex", String(index + 2));
    const wanted = section ? 0 : last - first;
    while (row.cells.length < wanted) {
      const cell = element("div", "cell", "gridcell");
      row.cells.push(cell);
      row.element.append(cell);
    }
    for (const cell of row.cells.splice(wanted)) cell.remove();
    if (section) this.#drawSection(row, index, section);
    else this.#drawNode(row, index, node, first);
  }

  #drawSection(row, index, section) {
    const all = total(section.counts);
    const title = section.groups.length ? section.name : "no group";
    const counts = [...STATES]
      .filter((letter) => letter !== "A" && section.counts[letter])
      .map((letter) => `${number(section.counts[letter])} ${stateWord(letter)}`);
    const text = [
      counted(section.nodes.length, "node"),
      `${number(section.counts.A ?? 0)} of ${number(all)} copies available`,
      ...counts,
    ].join(" · ");
    set(row.element, "class", "row section");
    set(row.name, "class", `cell name${this.#mark(index + 1, 0, { section })}`);
    set(row.name, "tabindex", this.#isActive(index + 1, 0) ? "0" : "-1");
    set(row.name, "aria-expanded", String(!section.closed));
    set(row.name, "aria-label", `Group ${title}: ${text}`);
    set(row.name, "title", null);
    setText(row.label, `${section.closed ? "▸" : "▾"} ${title}`);
    setText(row.note, text);
    row.bar.hidden = true;
  }

  #drawNode(row, index, node, first) {
    const troubled = !node.ready || node.problem;
    const disk = node.disk ? `${bytes(node.disk[2])} free of ${bytes(node.disk[0])}` : "";
    const state = node.ready ? node.problem : "not ready";
    set(row.element, "class", `row${index % 2 ? " odd" : ""}`);
    set(row.name, "class", `cell name${troubled ? " bad" : ""}${this.#mark(index + 1, 0, { node })}`);
    set(row.name, "tabindex", this.#isActive(index + 1, 0) ? "0" : "-1");
    set(row.name, "aria-expanded", null);
    set(row.name, "aria-label", [node.name, state, disk].filter(Boolean).join(", "));
    set(row.name, "title", [node.name, state, disk].filter(Boolean).join("\n"));
    setText(row.label, troubled ? `▲ ${node.name}` : node.name);
    setText(row.note, node.disk ? bytes(node.disk[2]) : "");
    row.bar.hidden = !node.disk;
    if (node.disk) {
      const share = node.disk[0] ? 1 - node.disk[2] / node.disk[0] : 0;
      set(row.bar, "style.--share", String(Math.round(share * 100) / 100));
      set(row.bar, "class", `bar${share > 0.9 ? " full" : ""}`);
    }
    row.cells.forEach((cell, offset) => {
      const column = first + offset;
      this.#drawCell(cell, index, column, node, this.view.columns[column]);
    });
  }

  #drawCell(cell, index, column, node, model) {
    const letter = this.store.letter(node, model);
    const extra = this.store.extra(node, model);
    const percent = extra?.percent ?? null;
    set(cell, "class", `cell s s${letter === NOT_PLANNED ? "0" : letter}${this.#mark(index + 1, column + 1, { node, model })}`);
    set(cell, "style.left", `${this.nameWidth + column * this.cellWidth}px`);
    set(cell, "style.--share", percent === null ? "" : String(percent / 100));
    set(cell, "tabindex", this.#isActive(index + 1, column + 1) ? "0" : "-1");
    set(cell, "aria-colindex", String(column + 2));
    set(cell, "aria-label", `${model.name} on ${node.name}: ${described(letter, extra)}`);
    setText(cell, this.words ? short(letter, extra) : percent === null ? plain(letter) : String(Math.min(percent, 99)));
  }

  // Classes of the active cell, and of the cell whose details are shown.
  #mark(row, column, place) {
    let classes = this.#isActive(row, column) ? " active" : "";
    if (this.opened && same(this.opened, place)) classes += " opened";
    return classes;
  }

  #isActive(row, column) {
    return this.active.row === row && this.active.column === column;
  }

  // Moving.

  focus() {
    this.#reveal();
    this.#focusActive();
  }

  // Make the cell of a place active. Returns whether it is shown.
  goTo(place) {
    const found = this.#find(place);
    if (!found) return false;
    this.#moveTo(found, { focus: false });
    return true;
  }

  open(place) {
    this.opened = place;
    this.schedule();
  }

  // What the cell at a position is about.
  place({ row, column }) {
    const model = column > 0 ? this.view.columns[column - 1] : undefined;
    if (row === 0) return model ? { model } : {};
    const { section, node } = this.view.rows[row - 1] ?? {};
    if (section) return { section };
    if (!node) return {};
    return model ? { node, model } : { node };
  }

  #find({ section, node, model }) {
    const row = section || node ? this.rowOf.get((section ?? node).name) : -1;
    const column = model ? this.columnOf.get(model.name) : -1;
    if (row === undefined || column === undefined) return null;
    if (row === -1 && column === -1) return null;
    return { row: row + 1, column: column + 1 };
  }

  #clamped({ row, column }) {
    return {
      row: Math.max(0, Math.min(row, this.view.rows.length)),
      column: Math.max(0, Math.min(column, this.view.columns.length)),
    };
  }

  #moveTo(position, { focus = true } = {}) {
    this.active = this.#clamped(position);
    this.#reveal();
    if (focus) this.#focusActive();
    this.onMove(this.place(this.active));
  }

  // Scroll the active cell into sight, and draw.
  #reveal() {
    const { row, column } = this.active;
    if (row > 0) {
      const top = this.tops[row - 1];
      const bottom = this.tops[row];
      const room = this.height - this.headHeight;
      if (top < this.grid.scrollTop) this.grid.scrollTop = row === 1 ? 0 : top;
      else if (bottom > this.grid.scrollTop + room) this.grid.scrollTop = bottom - room;
    }
    if (column > 0 && !this.view.rows[row - 1]?.section) {
      const left = (column - 1) * this.cellWidth;
      const room = this.width - this.nameWidth;
      if (left < this.grid.scrollLeft) this.grid.scrollLeft = left;
      else if (left + this.cellWidth > this.grid.scrollLeft + room) {
        this.grid.scrollLeft = left + this.cellWidth - room;
      }
    }
    this.draw();
  }

  #focusActive() {
    (this.#elementAt(this.active) ?? this.grid).focus({ preventScroll: true });
  }

  #elementAt({ row, column }) {
    if (row === 0) {
      if (column === 0) return this.corner;
      return this.heads.find((cell) => cell.getAttribute("aria-colindex") === String(column + 1));
    }
    const drawn = this.rows.get(row - 1);
    if (!drawn) return undefined;
    if (column === 0 || this.view.rows[row - 1]?.section) return drawn.name;
    return drawn.cells.find((cell) => cell.getAttribute("aria-colindex") === String(column + 1));
  }

  // The next place, after the active one and around, that a test accepts.
  next(test, step = 1) {
    const columns = this.view.columns.length;
    const cells = this.view.rows.length * columns;
    if (cells === 0) return;
    const { row, column } = this.active;
    const start = Math.max(0, row - 1) * columns + Math.max(0, column - 1) + (row && column ? 0 : -step);
    for (let walked = 1; walked <= cells; walked++) {
      const at = (((start + walked * step) % cells) + cells) % cells;
      const { node } = this.view.rows[Math.floor(at / columns)];
      if (node && test(node, this.view.columns[at % columns])) {
        this.#moveTo({ row: Math.floor(at / columns) + 1, column: (at % columns) + 1 });
        return;
      }
    }
  }

  #key(event) {
    if (event.altKey || event.metaKey) return;
    const { row, column } = this.active;
    const isSection = Boolean(this.view.rows[row - 1]?.section);
    const page = Math.max(1, Math.floor((this.height - this.headHeight) / ROW) - 1);
    const last = { row: this.view.rows.length, column: this.view.columns.length };
    const moves = {
      ArrowUp: [row - 1, column],
      ArrowDown: [row + 1, column],
      ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1],
      PageUp: [Math.max(Math.min(row, 1), row - page), column],
      PageDown: [row + page, column],
      Home: event.ctrlKey ? [Math.min(1, last.row), 0] : [row, 0],
      End: event.ctrlKey ? [last.row, last.column] : [row, last.column],
    };
    const place = this.place(this.active);
    if (isSection && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
      // As in a tree: left closes, right opens.
      if (place.section.closed === (event.key === "ArrowRight")) this.onOpen(place);
    } else if (moves[event.key]) {
      this.#moveTo({ row: moves[event.key][0], column: moves[event.key][1] });
    } else if (event.key === "Enter" || event.key === " ") {
      this.onOpen(place);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #click(event) {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    const column = Number(cell.getAttribute("aria-colindex")) - 1;
    const row = Number(cell.closest('[role="row"]').getAttribute("aria-rowindex")) - 1;
    this.#moveTo({ row, column });
    this.onOpen(this.place(this.active));
  }
}

export function same(one, other) {
  return (
    one.section?.name === other.section?.name &&
    one.node?.name === other.node?.name &&
    one.model?.name === other.model?.name
  );
}

// "downloading, 42 %, 250 MiB/s" or "failed, DiskFull".
export function described(letter, extra) {
  const parts = [stateWord(letter)];
  if (extra?.percent != null) parts.push(`${extra.percent} %`);
  if (extra?.rate) parts.push(rate(extra.rate));
  if (extra?.reason) parts.push(extra.reason);
  return parts.join(", ");
}

function short(letter, extra) {
  if (letter === NOT_PLANNED) return "·";
  if (letter === "D" && extra?.percent != null) {
    return `${extra.percent} %${extra.rate ? ` · ${rate(extra.rate)}` : ""}`;
  }
  return stateWord(letter);
}

function plain(letter) {
  return letter === NOT_PLANNED ? "·" : letter;
}

function element(tag, className, role) {
  const made = document.createElement(tag);
  made.className = className;
  if (role) made.setAttribute("role", role);
  made.drawn = {};
  return made;
}

// Set an attribute or a property of the style, unless it is set already; null removes it.
function set(target, name, value) {
  if (target.drawn[name] === value) return;
  target.drawn[name] = value;
  if (name.startsWith("style.")) target.style.setProperty(name.slice(6), value);
  else if (value === null) target.removeAttribute(name);
  else target.setAttribute(name, value);
}

function setText(target, text) {
  if (target.drawn.text === text) return;
  target.drawn.text = text;
  target.textContent = text;
}
