// Words for states, sizes and times.

// Most urgent first. The letters are those of status.models[].states of a LocalModelNodeGroup;
// U and R are of this page.
export const STATES = "FNEPUDRA";
export const NOT_PLANNED = ".";

const WORDS = {
  A: "available",
  D: "downloading",
  P: "waiting",
  U: "not reported",
  F: "failed",
  E: "evicted",
  N: "node not ready",
  R: "removing",
  [NOT_PLANNED]: "not planned",
};

export function stateWord(letter) {
  return WORDS[letter] ?? "unknown";
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(count) {
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits).replace(/\.0+$/, "")} ${UNITS[unit]}`;
}

export function rate(bytesPerSecond) {
  return `${bytes(bytesPerSecond)}/s`;
}

const NUMBERS = new Intl.NumberFormat("en");

export function number(value) {
  return NUMBERS.format(value);
}

export function counted(value, noun) {
  return `${number(value)} ${noun}${value === 1 ? "" : "s"}`;
}

export function copies(value) {
  return `${number(value)} ${value === 1 ? "copy" : "copies"}`;
}

// "3 min 20 s"; two units at most.
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) {
    const rest = whole % 60;
    return `${Math.floor(whole / 60)} min${whole < 600 && rest ? ` ${rest} s` : ""}`;
  }
  if (whole < 86400) {
    const rest = Math.floor((whole % 3600) / 60);
    return `${Math.floor(whole / 3600)} h${rest ? ` ${rest} min` : ""}`;
  }
  const rest = Math.floor((whole % 86400) / 3600);
  return `${Math.floor(whole / 86400)} d${rest ? ` ${rest} h` : ""}`;
}
