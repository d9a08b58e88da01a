// Panels coloured by a number: heat maps of point against point, and paths whose colour is depth.
const VIRIDIS = [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121], [110, 206, 88], [181, 222, 43], [253, 231, 37]];

function viridis(part) {
  const at = Math.max(0, Math.min(1, part)) * (VIRIDIS.length - 1), i = Math.min(VIRIDIS.length - 2, Math.floor(at));
  return `rgb(${VIRIDIS[i].map((v, k) => Math.round(v + (VIRIDIS[i + 1][k] - v) * (at - i))).join(",")})`;
}

function colourBar(svg, x, y, tall, low, high, words) {
  const steps = 24;
  for (let i = 0; i < steps; i++)
    svg.append(node("rect", { x, y: y + tall - ((i + 1) * tall) / steps, width: 10, height: tall / steps + 0.6, fill: viridis((i + 0.5) / steps) }));
  svg.append(node("text", { x: x + 14, y: y + 9 }, tickText(high)), node("text", { x: x + 14, y: y + tall }, tickText(low)));
  if (words) svg.append(node("text", { x: x + 14, y: y + tall / 2 + 4 }, words));
}

function heatPanel(chart, panel, width) {
  const { x: xs, y: ys, z } = panel.grid, left = 34, top = 6, foot = 36, bar = 52;
  const inner = width - left - bar, tall = Math.round((inner * ys.length) / xs.length), height = tall + top + foot;
  const finite = z.flat().filter(has), low = Math.min(...finite) < -0.2 ? -1 : 0, high = 1;
  const svg = frame(panel, width, height), w = inner / xs.length, h = tall / ys.length;
  z.forEach((row, r) => row.forEach((value, c) => {
    if (has(value)) svg.append(node("rect", { x: left + c * w, y: top + r * h, width: w + 0.4, height: h + 0.4, fill: viridis((value - low) / (high - low)) }));
  }));
  for (const value of layerTicks(0, xs.length - 1, inner / 45)) svg.append(node("text", { x: left + (value + 0.5) * w, y: top + tall + 15, "text-anchor": "middle" }, tickText(value)));
  for (const value of layerTicks(0, ys.length - 1, tall / 45)) svg.append(node("text", { x: left - 5, y: top + (value + 0.5) * h + 4, "text-anchor": "end" }, tickText(value)));
  svg.append(node("text", { x: left + inner / 2, y: height - 4, "text-anchor": "middle" }, panel.xLabel));
  colourBar(svg, left + inner + 8, top, tall, low, high);
  const marker = node("rect", { class: "cursor", width: w, height: h, fill: "none", visibility: "hidden" });
  svg.append(marker);
  readable(svg, panel, {
    count: xs.length * ys.length,
    nearest: (px, py) => {
      const c = Math.max(0, Math.min(xs.length - 1, Math.floor((px - left) / w))), r = Math.max(0, Math.min(ys.length - 1, Math.floor((py - top) / h)));
      return r * xs.length + c;
    },
    place: (i) => [left + ((i % xs.length) + 0.5) * w, top + (Math.floor(i / xs.length) + 0.5) * h],
    show: (i) => {
      const r = Math.floor(i / xs.length), c = i % xs.length;
      for (const [name, value] of [["x", left + c * w], ["y", top + r * h], ["visibility", "visible"]]) marker.setAttribute(name, value);
      return { title: panel.title, lines: [{ tint: viridis((z[r][c] - low) / (high - low)), text: `${panel.yLabel} ${ys[r]}, ${panel.xLabel} ${xs[c]}: ${shown(z[r][c])}` }] };
    },
    hide: () => marker.setAttribute("visibility", "hidden"),
  });
  return svg;
}

function pathPanel(chart, panel, width) {
  const at = (one) => one.x || panel.x, all = panel.series;
  const range = (values) => {
    const clear = values.filter(has), low = Math.min(...clear), high = Math.max(...clear), pad = (high - low || Math.abs(high) || 1) * 0.06;
    return [low - pad, high + pad];
  };
  const [x0, x1, y0, y1] = panel.window || [...range(all.flatMap(at)), ...range(all.flatMap((one) => one.y))];
  const left = 52, top = 8, foot = 36, bar = 54, inner = width - left - bar;
  const tall = Math.round(panel.window ? (inner * (y1 - y0)) / (x1 - x0) : inner * 0.8), height = tall + top + foot;
  const x = scale(x0, x1, left, left + inner), y = scale(y0, y1, top + tall, top), svg = frame(panel, width, height);
  for (const value of ticks(x0, x1, inner / 70)) svg.append(node("text", { x: x(value), y: top + tall + 16, "text-anchor": "middle" }, tickText(value)));
  for (const value of ticks(y0, y1, tall / 50)) {
    svg.append(node("line", { class: "axis", x1: left, x2: left + inner, y1: y(value), y2: y(value) }));
    svg.append(node("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, tickText(value)));
  }
  svg.append(node("text", { x: left + inner / 2, y: height - 5, "text-anchor": "middle" }, `${panel.xLabel}, ${panel.yLabel} upwards`));
  const points = (one) => at(one).map((value, i) => [x(value), y(number(one.y[i]))]);
  for (const one of all.filter((each) => each.role !== "measured")) svg.append(node("path", { class: `s ${one.role}`, d: path(points(one)), "--tint": tint(one) }));
  const main = all.find((one) => one.role === "measured"), dots = main ? points(main) : [];
  dots.forEach((p, i) => {
    if (i) svg.append(node("path", { d: path([dots[i - 1], p]), fill: "none", "stroke-width": 1.6, stroke: viridis(i / (dots.length - 1)) }));
  });
  dots.forEach(([px, py], i) => svg.append(node("circle", { cx: px, cy: py, r: 3.2, fill: viridis(i / Math.max(1, dots.length - 1)) })));
  if (dots.length) colourBar(svg, left + inner + 8, top, Math.min(tall, 120), 0, dots.length - 1, "point");
  if (panel.note) svg.append(node("text", { x: left + 6, y: top + 12 }, panel.note));
  const marker = node("circle", { class: "cursor", r: 5.5, fill: "none", visibility: "hidden" });
  svg.append(marker);
  readable(svg, panel, {
    count: dots.length,
    nearest: (px, py) => dots.reduce((best, [a, b], i) => ((a - px) ** 2 + (b - py) ** 2 < (dots[best][0] - px) ** 2 + (dots[best][1] - py) ** 2 ? i : best), 0),
    place: (i) => dots[i] || [left, top],
    show: (i) => {
      if (!dots.length) return { title: panel.title, lines: [] };
      marker.setAttribute("cx", dots[i][0]);
      marker.setAttribute("cy", dots[i][1]);
      marker.setAttribute("visibility", "visible");
      return { title: panel.title, lines: [{ tint: viridis(i / Math.max(1, dots.length - 1)), text: `point ${i}: ${shown(at(main)[i])}, ${shown(main.y[i])}` }] };
    },
    hide: () => marker.setAttribute("visibility", "hidden"),
  });
  return svg;
}
