// Panels of a flow: arrows from where points were put to where they went, over the data.
function flowPanel(chart, panel, width) {
  const [x0, x1, y0, y1] = panel.window, left = 52, top = 8, foot = 36, inner = width - left - 10;
  const tall = Math.round((inner * (y1 - y0)) / (x1 - x0)), height = tall + top + foot;
  const x = scale(x0, x1, left, left + inner), y = scale(y0, y1, top + tall, top), svg = frame(panel, width, height);
  svg.style.maxWidth = `${width}px`;
  const clip = `clip-flow-${++flowPanel.made}`;
  svg.append(node("defs", {}, node("clipPath", { id: clip }, node("rect", { x: left, y: top, width: inner, height: tall }))));
  svg.append(node("rect", { class: "axis", x: left, y: top, width: inner, height: tall, fill: "none" }));
  for (const value of ticks(x0, x1, inner / 70)) svg.append(node("text", { x: x(value), y: top + tall + 16, "text-anchor": "middle" }, tickText(value)));
  for (const value of ticks(y0, y1, tall / 50)) svg.append(node("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, tickText(value)));
  svg.append(node("text", { x: left + inner / 2, y: height - 5, "text-anchor": "middle" }, `${panel.xLabel}, ${panel.yLabel} upwards`));
  const inside = node("g", { "clip-path": `url(#${clip})` });
  svg.append(inside);
  for (const one of panel.series) {
    const xs = one.x || panel.x;
    if (!one.toX) {
      let d = "";
      xs.forEach((value, i) => { d += `M${x(value).toFixed(1)} ${y(one.y[i]).toFixed(1)}h0`; });
      inside.append(node("path", { class: `cloud ${one.role}`, d, "--dot": xs.length === 1 ? 8 : 3, "--tint": tint(one) }));
      continue;
    }
    let shafts = "", heads = "";
    xs.forEach((value, i) => {
      if (!has(one.toX[i]) || !has(one.toY[i])) return;
      const [ax, ay, bx, by] = [x(value), y(one.y[i]), x(one.toX[i]), y(one.toY[i])];
      const long = Math.hypot(bx - ax, by - ay) || 1, ux = (bx - ax) / long, uy = (by - ay) / long, head = Math.min(5, long);
      shafts += path([[ax, ay], [bx, by]]);
      heads += path([[bx - head * (ux + 0.45 * uy), by - head * (uy - 0.45 * ux)], [bx, by], [bx - head * (ux - 0.45 * uy), by - head * (uy + 0.45 * ux)]]);
    });
    inside.append(node("path", { d: shafts + heads, fill: "none", stroke: tint(one), "stroke-width": 1.2 }));
  }
  if (panel.note) svg.append(node("text", { x: left + 6, y: top + 14 }, panel.note));
  const arrows = panel.series.filter((one) => one.toX), first = arrows[0], xs = first ? first.x || panel.x : [];
  const marker = node("circle", { class: "cursor", r: 5, fill: "none", visibility: "hidden" });
  svg.append(marker);
  readable(svg, panel, {
    count: xs.length,
    nearest: (px, py) => xs.reduce((best, value, i) => ((x(value) - px) ** 2 + (y(first.y[i]) - py) ** 2 < (x(xs[best]) - px) ** 2 + (y(first.y[best]) - py) ** 2 ? i : best), 0),
    place: (i) => (xs.length ? [x(xs[i]), y(first.y[i])] : [left, top]),
    show: (i) => {
      if (!xs.length) return { title: panel.title, lines: [] };
      marker.setAttribute("cx", x(xs[i]));
      marker.setAttribute("cy", y(first.y[i]));
      marker.setAttribute("visibility", "visible");
      const lines = arrows.map((one) => ({ tint: tint(one), text: `${one.label}: ${shown(one.toX[i] - xs[i], true)}, ${shown(one.toY[i] - one.y[i], true)} as drawn` }));
      return { title: `${panel.title}, from ${shown(xs[i])}, ${shown(first.y[i])}`, lines };
    },
    hide: () => marker.setAttribute("visibility", "hidden"),
  });
  return svg;
}
flowPanel.made = 0;
