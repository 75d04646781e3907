// Numbers as people read them, always with their unit.

export const NONE = "–";

/** At most three digits that matter. */
export function short(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 0.01) return value.toPrecision(1);
  if (size < 10) return trim(value.toFixed(2));
  if (size < 100) return trim(value.toFixed(1));
  if (size < 10000) return Math.round(value).toLocaleString("en");
  for (const [unit, power] of [["k", 1e3], ["M", 1e6], ["G", 1e9], ["T", 1e12]]) {
    if (size < power * 999.5) return trim((value / power).toPrecision(3)) + " " + unit;
  }
  return value.toPrecision(3);
}

function trim(text) {
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

export function count(value) {
  return value === undefined || value === null ? NONE : value.toLocaleString("en");
}

export function rate(value) {
  return value === undefined || value === null ? NONE : short(value) + "\u202f/s";
}

export function ms(value) {
  if (value === undefined || value === null) return NONE;
  // What is told is whole milliseconds, cut off.
  if (value === 0) return "< 1 ms";
  return value < 1000 ? short(value) + " ms" : short(value / 1000) + " s";
}

/** A share of 1. Never rounded up to 100 %. */
export function percent(value) {
  if (value === undefined || value === null || Number.isNaN(value)) return NONE;
  if (value > 0.9999 && value < 1) return "99.99 %";
  return trim((value * 100).toFixed(value > 0.99 && value < 1 ? 2 : 1)) + " %";
}

export function bytes(value) {
  if (value === undefined || value === null) return NONE;
  for (const [unit, power] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (value >= power) return trim((value / power).toPrecision(3)) + " " + unit;
  }
  return short(value) + " B";
}

/** Memory, in powers of 1024. */
export function memory(value) {
  return value < 2 ** 20 ? Math.ceil(value / 1024) + " KiB" : trim((value / 2 ** 20).toFixed(1)) + " MiB";
}

/** How long something takes or has taken, in its largest two units. */
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 120) return s + " s";
  if (s < 7200) return Math.floor(s / 60) + " min" + (s < 600 && s % 60 ? " " + (s % 60) + " s" : "");
  if (s < 172800) return Math.floor(s / 3600) + " h " + Math.floor((s % 3600) / 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor((s % 86400) / 3600) + " h";
}

/** The time of day of a second since 1970. */
export function clock(second, seconds = true) {
  const options = { hour: "2-digit", minute: "2-digit", hour12: false };
  if (seconds) options.second = "2-digit";
  return new Date(second * 1000).toLocaleTimeString("en-GB", options);
}

/** A value with its unit. */
export function withUnit(value, unit) {
  if (value === undefined || value === null) return NONE;
  switch (unit) {
    case "/s": return rate(value);
    case "ratio": return percent(value);
    case "ms": return ms(value);
    case "bytes/s": return bytes(value) + "/s";
    default: return short(value);
  }
}
