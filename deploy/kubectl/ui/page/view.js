// Which nodes and models are shown, and in which order. No DOM here.

import { STATES } from "./words.js";

// settings: {search, group, states (a Set of letters; empty: all), sort, order, closed (a Set of
// names of sections)}. Returns {rows, columns, sections}: rows are {section} or {node}.
export function makeView(store, settings) {
  const words = settings.search.toLowerCase().split(/\s+/).filter(Boolean);
  let nodes = [...store.nodes.values()];
  let models = [...store.models.values()];
  if (settings.group !== "") {
    nodes = nodes.filter((node) => node.groups.includes(settings.group));
    models = models.filter((model) => model.groups.includes(settings.group));
  }
  [nodes, models] = searched(nodes, models, words);
  if (settings.states.size > 0) [nodes, models] = inStates(store, nodes, models, settings.states);
  nodes.sort(NODE_ORDERS[settings.sort]);
  models.sort(MODEL_ORDERS[settings.order]);
  return { columns: models, ...sectioned(nodes, models, store, settings.closed) };
}

// Each word selects nodes or models by a part of their names. A word that selects nothing leaves
// nothing.
function searched(nodes, models, words) {
  const byNode = words.filter((word) => nodes.some((node) => node.name.includes(word)));
  const byModel = words.filter((word) => models.some((model) => matches(model, word)));
  if (words.some((word) => !byNode.includes(word) && !byModel.includes(word))) return [[], []];
  // A word such as "gpu" of both kinds selects in both.
  if (byNode.length) {
    nodes = nodes.filter((node) => byNode.some((word) => node.name.includes(word)));
  }
  if (byModel.length) {
    models = models.filter((model) => byModel.some((word) => matches(model, word)));
  }
  return [nodes, models];
}

function matches(model, word) {
  return model.name.toLowerCase().includes(word);
}

function inStates(store, nodes, models, states) {
  const used = new Set();
  const kept = nodes.filter((node) => {
    let found = false;
    for (const model of models) {
      if (states.has(store.letter(node, model))) {
        used.add(model);
        found = true;
      }
    }
    return found;
  });
  return [kept, models.filter((model) => used.has(model))];
}

// Available copies are no trouble, however many.
const TROUBLES = STATES.replace("A", "");
const collator = new Intl.Collator("en", { numeric: true });

function byName(one, other) {
  return collator.compare(one.name, other.name);
}

function byState(one, other) {
  for (const letter of TROUBLES) {
    const difference = (other.counts[letter] ?? 0) - (one.counts[letter] ?? 0);
    if (difference) return difference;
  }
  return byName(one, other);
}

function available(node) {
  return node.disk ? node.disk[2] : Infinity;
}

const NODE_ORDERS = {
  name: byName,
  state: byState,
  disk: (one, other) => {
    const [first, second] = [available(one), available(other)];
    return first === second ? byName(one, other) : first - second;
  },
};

const MODEL_ORDERS = {
  name: byName,
  state: byState,
  size: (one, other) => other.size - one.size || byName(one, other),
};

// A section for each set of groups that some node is in: a node is in one section.
function sectioned(nodes, models, store, closed) {
  const sections = new Map();
  for (const node of nodes) {
    const name = node.groups.join(" + ");
    if (!sections.has(name)) {
      sections.set(name, { name, groups: node.groups, nodes: [], counts: {} });
    }
    sections.get(name).nodes.push(node);
  }
  const sorted = [...sections.values()].sort(byName);
  const rows = [];
  for (const section of sorted) {
    for (const node of section.nodes) {
      for (const model of models) {
        const letter = store.letter(node, model);
        if (letter !== ".") section.counts[letter] = (section.counts[letter] ?? 0) + 1;
      }
    }
    section.closed = closed.has(section.name);
    rows.push({ section });
    if (!section.closed) for (const node of section.nodes) rows.push({ node });
  }
  return { rows, sections: sorted };
}

// What does not work: failed copies by model and reason, then nodes and groups that are not ready.
// Each problem: {letter, title, detail, node, model}; node and model may be null.
export function problems(store) {
  const found = new Map();
  for (const node of store.nodes.values()) {
    if (!node.counts.F) continue;
    for (const model of store.models.values()) {
      if (store.letter(node, model) !== "F") continue;
      const reason = store.extra(node, model)?.reason || "failed";
      const key = `${model.name} ${reason}`;
      const known = found.get(key);
      if (known) known.nodes.push(node.name);
      else found.set(key, { letter: "F", title: model.name, reason, nodes: [node.name], model });
    }
  }
  const listed = [...found.values()].sort((one, other) => other.nodes.length - one.nodes.length);
  for (const node of store.nodes.values()) {
    if (!node.ready) {
      listed.push({ letter: "N", title: node.name, reason: "node not ready", nodes: [node.name] });
    }
    if (node.problem) {
      listed.push({ letter: "F", title: node.name, reason: node.problem, nodes: [node.name] });
    }
  }
  for (const group of store.groups.values()) {
    if (!group.ready) {
      listed.push({ letter: "P", title: `group ${group.name}`, reason: group.reason, nodes: [] });
    }
  }
  return listed;
}
