// Helpers: elements, numbers, scales and ticks. Text goes in as text, never as markup.
const SVG = "http://www.w3.org/2000/svg";

function node(name, attributes, ...children) {
  const svg = ["svg", "g", "path", "line", "circle", "rect", "text", "clipPath", "defs"].includes(name);
  const made = svg ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith("--")) made.style.setProperty(key, value);
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) made.append(child);
  return made;
}

const tint = (series) => `var(--${series.role}${SECOND.has(series.role) && series.store ? "-2" : ""})`;
const SECOND = new Set(["measured", "fan", "orientation", "biased"]);

// With `flat`, what is below the third decimal is .000, as in a table.
function shown(value, signed, flat) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  let text;
  if (size === 0) text = "0";
  else if (flat && size < 5e-4) return "0.000";
  else if (size < 1e-4 || size >= 1e6) text = value.toExponential(2);
  else if (size < 1) text = value.toFixed(3);
  else text = value.toFixed(Math.max(0, 2 - Math.floor(Math.log10(size) + 1e-9)));
  text = text.replace("-", "−").replace("e+", "e");
  return signed && value > 0 ? "+" + text : text;
}

function scale(low, high, from, to, log) {
  const f = log ? Math.log10 : (v) => v;
  const a = f(low), b = f(high), width = b - a || 1;
  const map = (value) => from + ((f(value) - a) / width) * (to - from);
  map.low = low;
  map.high = high;
  return map;
}

function ticks(low, high, most) {
  const span = high - low;
  if (!(span > 0)) return [low];
  const rough = span / Math.max(1, most), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough - 1e-12 * s);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * span; k++) found.push(k === 0 ? 0 : k * step);
  return found;
}

function layerTicks(low, high, most) {
  const all = ticks(low, high, most).filter((value) => Math.abs(value - Math.round(value)) < 1e-9);
  return all.length > 1 || high - low < 1 ? all : [Math.ceil(low), Math.floor(high)];
}

function logTicks(low, high) {
  const found = [], short = high / low < 60;
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const m of high / low < 12 ? [1, 2, 3, 5, 7] : short ? [1, 2, 5] : [1]) {
      const value = m * 10 ** power;
      if (value >= low && value <= high) found.push(value);
    }
  return found.length > 1 ? found : ticks(low, high, 4).filter((value) => value > 0);
}

const tickText = (value) => String(+value.toPrecision(6)).replace("-", "−");

function path(points) {
  let text = "", open = false;
  for (const [x, y] of points) {
    if (!Number.isFinite(x) || !Number.isFinite(y)) { open = false; continue; }
    text += `${open ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    open = true;
  }
  return text;
}

const number = (value) => (value === null || value === undefined ? NaN : value);
const has = (value) => value !== null && value !== undefined;
