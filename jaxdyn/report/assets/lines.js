// Panels with layer or depth along x: lines on bands, and bars. Each answers to pointer and arrow keys.
function linePanel(chart, panel, view, width, height, labelled) {
  const bars = chart.kind === "budget";
  const all = panel.series.filter((one) => !one.view || one.view === view);
  const at = (one) => one.x || panel.x;
  const clear = (value) => has(value) && (!panel.log || value > 0);
  const values = all.flatMap((one) => [...one.y, ...(one.low || []), ...(one.high || [])]).filter(clear);
  const xs = [...new Set(all.flatMap(at))].sort((a, b) => a - b);
  if (!values.length) return node("p", { class: "line" }, "no finite values");
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (bars || panel.zero) low = Math.min(0, low);
  const pad = panel.log ? Math.pow(high / low, 0.05) || 1.05 : (high - low || Math.abs(high) || 1) * 0.07;
  [low, high] = panel.log ? [low / pad, high * pad] : [(bars || panel.zero) && low === 0 ? 0 : low - pad, high + pad];
  const yTicks = panel.log ? logTicks(low, high) : ticks(low, high, height > 260 ? 6 : 4);
  const left = 10 + 7 * Math.max(...yTicks.map((value) => tickText(value).length));
  const ends = labelled ? all.filter((one) => one.role !== "fan") : [];
  const right = ends.length ? Math.min(width * 0.34, 16 + 6.9 * Math.max(...ends.map((one) => one.label.length))) : 12;
  const margin = bars ? 0.55 : xs.length > 1 ? (xs[xs.length - 1] - xs[0]) * 0.015 : 0.5;
  const longest = panel.names ? Math.max(...panel.names.map((name) => name.length)) : 0;
  const bottom = height - (panel.names ? 20 + 5.6 * longest : 36);
  const x = scale(xs[0] - margin, xs[xs.length - 1] + margin, left, width - right);
  const said = panel.note ? panel.note.split("; ") : [], top = 8 + 14 * said.length; // above the plot, off its lines
  const y = scale(low, high, bottom, top, panel.log);
  const svg = frame(panel, width, height);
  for (const value of yTicks) {
    svg.append(node("line", { class: "axis", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    svg.append(node("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, tickText(value)));
  }
  for (const [place, name] of (panel.names || []).entries())
    svg.append(node("text", { x: 0, y: 0, "text-anchor": "end", transform: `translate(${x(place) + 4} ${bottom + 12}) rotate(-60)` }, name));
  if (!panel.names) for (const value of (chart.kind === "plane" ? ticks : layerTicks)(xs[0], xs[xs.length - 1], width / 55))
    svg.append(node("text", { x: x(value), y: bottom + 16, "text-anchor": "middle" }, tickText(value)));
  svg.append(node("text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, panel.xLabel));
  if (!panel.log && low < 0 && high > 0) svg.append(node("line", { class: "zero", x1: left, x2: width - right, y1: y(0), y2: y(0) }));
  const fans = all.filter((one) => one.role === "fan");
  svg.style.setProperty("--thin", Math.max(0.12, Math.min(0.6, 10 / Math.max(1, fans.length))));
  const drawn = new Map();
  if (bars) drawBars(svg, all, at, x, y);
  else for (const one of all) drawn.set(one, drawLine(svg, one, at(one), x, y));
  if (ends.length) endLabels(svg, ends, at, x, y, width - right, bottom);
  for (const [place, part] of said.entries()) svg.append(node("text", { class: "note", x: left, y: 10 + 14 * place }, part));
  const cursor = node("line", { class: "cursor", y1: top, y2: bottom, visibility: "hidden" });
  svg.append(cursor);
  readable(svg, panel, {
    count: xs.length,
    nearest: (px) => xs.reduce((best, value, i) => (Math.abs(x(value) - px) < Math.abs(x(xs[best]) - px) ? i : best), 0),
    place: (i) => [x(xs[i]), 20],
    show: (i, py) => {
      cursor.setAttribute("x1", x(xs[i]));
      cursor.setAttribute("x2", x(xs[i]));
      cursor.setAttribute("visibility", "visible");
      return readings(all, at, xs[i], y, py, drawn, panel);
    },
    hide: () => {
      cursor.setAttribute("visibility", "hidden");
      for (const line of drawn.values()) line.classList.remove("near");
    },
  });
  return svg;
}

// The spread of a null is a band, that of a measurement bars; one seed of N5 has none.
const banded = (one) => ["N1", "N5", "null", "walk"].includes(one.role) && one.low && one.low.some(has);

function drawLine(svg, one, xs, x, y) {
  const second = one.store ? " second" : "";
  if (banded(one)) {
    const edge = (side) => xs.map((value, i) => [x(value), y(number(one[side][i]))]);
    const wide = xs.length > 1 ? [edge("high"), edge("low").reverse()].flat() : [];
    if (wide.length) svg.append(node("path", { class: `band ${one.role}${second}`, d: path(wide) + "Z", "--tint": tint(one) }));
    else svg.append(node("rect", { class: `band ${one.role}${second}`, "--tint": tint(one), x: x(xs[0]) - 14, width: 28,
                                   y: y(one.high[0]), height: Math.max(0.5, y(one.low[0]) - y(one.high[0])) }));
  }
  const points = xs.map((value, i) => [x(value), y(number(one.y[i]))]);
  const flat = points.length === 1 ? [[points[0][0] - 14, points[0][1]], [points[0][0] + 14, points[0][1]]] : points;
  const line = node("path", { class: `s ${one.role}${second}`, d: path(flat), "--tint": tint(one) });
  svg.append(line);
  const marked = { measured: 3.4, means: 3, biased: 2.4, N5: 2.6, rotated: 2.6, skip: 2.6, shuffled: 2.2, points: 3, jacobian: 2.6, displaced: 2.6, frozen: 2.6, ablated: 2.4 }[one.role];
  if (marked)
    points.forEach(([px, py], i) => {
      if (one.low && !banded(one) && has(one.low[i]) && has(one.high[i]))
        svg.append(node("path", { class: "s", "--tint": tint(one), d: path([[px, y(one.low[i])], [px, y(one.high[i])]]) }));
      if (!Number.isFinite(py)) return;
      svg.append(one.role === "means"
        ? node("rect", { class: "dot", x: px - marked, y: py - marked, width: 2 * marked, height: 2 * marked, "--tint": tint(one) })
        : node("circle", { class: "dot", cx: px, cy: py, r: marked, "--tint": tint(one) }));
    });
  return line;
}

function drawBars(svg, all, at, x, y) {
  const steps = all.filter((one) => one.role !== "measured");
  const room = Math.abs(x(1) - x(0)) * 0.84, width = room / steps.length;
  steps.forEach((one, place) =>
    at(one).forEach((value, i) => {
      if (!has(one.low[i]) || !has(one.high[i])) return;
      const top = Math.min(y(one.low[i]), y(one.high[i])), tall = Math.abs(y(one.low[i]) - y(one.high[i]));
      svg.append(node("rect", { class: "bar" + (one.y[i] < 0 ? " down" : ""), "--tint": tint(one), height: Math.max(1, tall),
                                x: x(value) - room / 2 + width * place, y: top, width: Math.max(1, width - 1) }));
    }));
  for (const one of all.filter((each) => each.role === "measured"))
    at(one).forEach((value, i) => {
      if (!has(one.y[i])) return;
      const px = x(value) + room / 2;
      if (has(one.low[i])) svg.append(node("path", { class: "s", "--tint": tint(one), d: path([[px, y(one.low[i])], [px, y(one.high[i])]]) }));
      svg.append(node("circle", { class: "dot", cx: px, cy: y(one.y[i]), r: 3, "--tint": tint(one) }));
    });
}

function endLabels(svg, ends, at, x, y, edge, bottom) {
  const placed = [];
  for (const one of ends) {
    const last = one.y.reduce((best, value, i) => (has(value) ? i : best), -1);
    if (last >= 0) placed.push({ one, y: y(number(one.y[last])) + 4 });
  }
  placed.sort((a, b) => a.y - b.y);
  placed.forEach((item, i) => { if (i) item.y = Math.max(item.y, placed[i - 1].y + 16); });
  const over = placed.length ? placed[placed.length - 1].y - bottom : 0;
  if (over > 0)
    for (let i = placed.length - 1; i >= 0; i--) placed[i].y = Math.min(placed[i].y, (i === placed.length - 1 ? bottom : placed[i + 1].y - 16));
  for (const item of placed)
    svg.append(node("text", { class: "label", x: edge + 10, y: item.y, "--tint": tint(item.one) }, item.one.label));
}

function readings(all, at, value, y, py, drawn, panel) {
  const lines = [], fans = [];
  for (const one of all) {
    const i = at(one).indexOf(value);
    if (i < 0 || !has(one.y[i])) continue;
    if (one.role === "fan") { fans.push([one, one.y[i]]); continue; }
    const range = one.low && has(one.low[i]) && !["trace", "singular", "orientation"].includes(one.role)
      ? ` [${shown(one.low[i])}, ${shown(one.high[i])}]` : "";
    lines.push({ tint: tint(one), text: `${one.label}: ${shown(one.y[i])}${range}` });
  }
  if (fans.length && has(py)) {
    fans.sort((a, b) => Math.abs(y(a[1]) - py) - Math.abs(y(b[1]) - py));
    for (const [one, line] of drawn) line.classList.toggle("near", one === fans[0][0]);
    lines.push({ tint: tint(fans[0][0]), text: `${fans[0][0].label}: ${shown(fans[0][1])}` });
  }
  return { title: `${panel.title}, ${panel.names ? panel.names[value] : `${panel.xLabel} ${tickText(value)}`}`, lines };
}
