// The state of the cluster as the page knows it. The server sends messages; see wire.py for their
// form. A message of the first kind (full) replaces everything.

import { NOT_PLANNED } from "./words.js";

export class Store {
  constructor() {
    this.clear();
  }

  clear() {
    this.groups = new Map();
    // name -> {name, slot, counts, ...head}. The slot is the model's place in the letters of nodes.
    this.models = new Map();
    // name -> {name, letters, extra, counts, ...head}
    this.nodes = new Map();
    this.counts = {};
    this.freeSlots = [];
    this.slots = 0;
  }

  // Returns the names of the nodes and of the models that the message changed; null: all.
  apply(message) {
    if (message.full) this.clear();
    for (const [name, head] of Object.entries(message.groups)) {
      if (head === null) this.groups.delete(name);
      else this.groups.set(name, { name, ...head });
    }
    for (const [name, head] of Object.entries(message.models)) this.#setModel(name, head);
    for (const [name, head] of Object.entries(message.nodes)) this.#setNode(name, head);
    for (const [name, row] of Object.entries(message.cells)) this.#setCells(name, row, message);
    if (message.full) return null;
    return new Set([
      ...Object.keys(message.nodes),
      ...Object.keys(message.cells),
      ...Object.keys(message.models),
      ...Object.keys(message.groups),
    ]);
  }

  letter(node, model) {
    return node.letters[model.slot] ?? NOT_PLANNED;
  }

  // {percent, rate, eta, reason}, or undefined.
  extra(node, model) {
    return node.extra.get(model.slot);
  }

  #setModel(name, head) {
    const known = this.models.get(name);
    if (head !== null) {
      if (known) Object.assign(known, head);
      else {
        const slot = this.freeSlots.pop() ?? this.slots++;
        this.models.set(name, { name, slot, counts: {}, ...head });
      }
    } else if (known) {
      for (const node of this.nodes.values()) this.#setCell(node, known, NOT_PLANNED);
      this.freeSlots.push(known.slot);
      this.models.delete(name);
    }
  }

  #setNode(name, head) {
    const known = this.nodes.get(name);
    if (head !== null) {
      if (known) Object.assign(known, head);
      else {
        this.nodes.set(name, { name, letters: [], extra: new Map(), counts: {}, ...head });
      }
    } else if (known) {
      for (const model of this.models.values()) this.#setCell(known, model, NOT_PLANNED);
      this.nodes.delete(name);
    }
  }

  #setCells(name, [letters, places, extras], message) {
    const node = this.nodes.get(name);
    if (!node) return;
    const model = (index) =>
      this.models.get(message.columns[places === null ? index : places[index]]);
    for (let index = 0; index < letters.length; index++) {
      const found = model(index);
      if (found) this.#setCell(node, found, letters[index]);
    }
    for (const [index, percent, rate, eta, reason] of extras) {
      const found = model(index);
      const text = reason < 0 ? "" : message.reasons[reason];
      if (found) node.extra.set(found.slot, { percent, rate, eta, reason: text });
    }
  }

  #setCell(node, model, letter) {
    const before = this.letter(node, model);
    node.extra.delete(model.slot);
    if (before === letter) return;
    for (const counts of [node.counts, model.counts, this.counts]) {
      if (before !== NOT_PLANNED) counts[before] -= 1;
      if (letter !== NOT_PLANNED) counts[letter] = (counts[letter] ?? 0) + 1;
    }
    node.letters[model.slot] = letter;
  }
}

export function total(counts) {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}
