// Panels of the complex plane: clouds of eigenvalues, and contours of a field; cells of a matrix.
function planePanel(chart, panel, width) {
  const [x0, x1, y0, y1] = panel.window;
  const left = 44, top = 8, foot = 36, inner = width - left - 10;
  const tall = Math.round((inner * (y1 - y0)) / (x1 - x0)), height = tall + top + foot;
  const x = scale(x0, x1, left, left + inner), y = scale(y0, y1, top + tall, top);
  const svg = frame(panel, width, height);
  const clip = `clip-${++planePanel.made}`;
  svg.append(node("defs", {}, node("clipPath", { id: clip }, node("rect", { x: left, y: top, width: inner, height: tall }))));
  svg.append(node("rect", { class: "axis", x: left, y: top, width: inner, height: tall }));
  for (const value of ticks(x0, x1, inner / 70)) svg.append(node("text", { x: x(value), y: top + tall + 16, "text-anchor": "middle" }, tickText(value)));
  for (const value of ticks(y0, y1, tall / 55)) svg.append(node("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, tickText(value)));
  svg.append(node("text", { x: left + inner / 2, y: height - 5, "text-anchor": "middle" }, `${panel.xLabel}, ${panel.yLabel} upwards`));
  const inside = node("g", { "clip-path": `url(#${clip})` });
  svg.append(inside);
  if (y0 < 0) inside.append(node("line", { class: "axis", x1: left, x2: left + inner, y1: y(0), y2: y(0) }));
  inside.append(node("line", { class: "axis", x1: x(0), x2: x(0), y1: top, y2: top + tall }));
  if (panel.grid) drawContours(inside, panel.grid, x, y);
  for (const one of panel.series) {
    const xs = one.x || panel.x;
    let d = "";
    for (let i = 0; i < xs.length; i++) d += `M${x(xs[i]).toFixed(1)} ${y(one.y[i]).toFixed(1)}h0`;
    const dot = (xs.length < 3000 ? 3 : xs.length < 9000 ? 2.2 : 1.5) * (one.role === "N1" ? 1.5 : 1);
    inside.append(node("path", { class: `cloud ${one.role}`, d, "--dot": dot, "--tint": tint(one) }));
  }
  const r = x(1) - x(0);
  inside.append(node("circle", { class: "circle", cx: x(0), cy: y(0), r }));
  if (panel.note) svg.append(node("text", { x: left + 6, y: top + tall - 7 }, panel.note));
  const lines = panel.series.map((one) => ({ tint: tint(one), text: `${one.label}: ${one.y.length} shown` }));
  const measured = panel.series.find((one) => one.role === "measured");
  const marker = node("circle", { class: "cursor", r: 5, fill: "none", visibility: "hidden" });
  svg.append(marker);
  const order = measured ? (measured.x || panel.x).map((_, i) => i).sort((a, b) => (measured.x || panel.x)[a] - (measured.x || panel.x)[b]) : [];
  readable(svg, panel, {
    count: order.length,
    nearest: (px, py) => {
      let best = 0, least = Infinity;
      order.forEach((index, i) => {
        const far = (x((measured.x || panel.x)[index]) - px) ** 2 + (y(measured.y[index]) - py) ** 2;
        if (far < least) [best, least] = [i, far];
      });
      return best;
    },
    place: (i) => (order.length ? [x((measured.x || panel.x)[order[i]]), y(measured.y[order[i]])] : [left, top]),
    show: (i) => {
      if (!order.length) return { title: panel.title, lines };
      const re = (measured.x || panel.x)[order[i]], im = measured.y[order[i]];
      marker.setAttribute("cx", x(re));
      marker.setAttribute("cy", y(im));
      marker.setAttribute("visibility", "visible");
      const said = `λ = ${shown(re)} ${im < 0 ? "−" : "+"} ${shown(Math.abs(im))} i, |λ| = ${shown(Math.hypot(re, im))}`;
      return { title: panel.title, lines: [{ tint: tint(measured), text: said }, ...lines] };
    },
    hide: () => marker.setAttribute("visibility", "hidden"),
  });
  return svg;
}
planePanel.made = 0;

function drawContours(inside, grid, x, y) {
  const labelled = [];
  for (const level of grid.levels) {
    let d = "", top = null;
    for (let r = 0; r + 1 < grid.y.length; r++)
      for (let c = 0; c + 1 < grid.x.length; c++) {
        const corner = [[c, r], [c + 1, r], [c + 1, r + 1], [c, r + 1]];
        if (corner.some(([i, j]) => !has(grid.z[j][i]))) continue;
        const cuts = [];
        for (let k = 0; k < 4; k++) {
          const [a, b] = [corner[k], corner[(k + 1) % 4]];
          const [za, zb] = [grid.z[a[1]][a[0]], grid.z[b[1]][b[0]]];
          if (za < level === zb < level) continue;
          const part = (level - za) / (zb - za);
          cuts.push([x(grid.x[a[0]] + part * (grid.x[b[0]] - grid.x[a[0]])), y(grid.y[a[1]] + part * (grid.y[b[1]] - grid.y[a[1]]))]);
        }
        for (let k = 0; k + 1 < cuts.length; k += 2) {
          d += path([cuts[k], cuts[k + 1]]);
          if (!top || cuts[k][1] < top[1]) top = cuts[k];
        }
      }
    inside.append(node("path", { class: "contour", d }));
    if (!top || labelled.some(([px, py]) => Math.abs(px - top[0]) < 24 && Math.abs(py - top[1]) < 15)) continue;
    labelled.push(top);
    inside.append(node("text", { x: top[0], y: top[1] + 12, "text-anchor": "middle" }, tickText(level)));
  }
}

function matrixPanel(panel, width) {
  const { x: columns, y: rows, z } = panel.grid;
  const left = 44, top = 8, foot = 54, side = Math.max(3, Math.min(46, Math.floor((width - left - 10) / columns.length)));
  const height = top + side * rows.length + foot, svg = frame(panel, width, height);
  const most = Math.max(1e-12, ...z.flat().filter(has).map(Math.abs));
  const each = Math.ceil(24 / side);
  rows.forEach((row, r) => {
    if (r % each === 0) svg.append(node("text", { x: left - 6, y: top + side * (r + 0.5) + 4, "text-anchor": "end" }, tickText(row)));
    columns.forEach((column, c) => {
      if (has(z[r][c])) svg.append(node("rect", { class: "cell", x: left + side * c, y: top + side * r, width: side, height: side,
        "--tint": z[r][c] < 0 ? "var(--measured-2)" : "var(--measured)", "fill-opacity": (Math.abs(z[r][c]) / most).toFixed(3) }));
    });
  });
  columns.forEach((column, c) => {
    if (c % each === 0) svg.append(node("text", { x: left + side * (c + 0.5), y: height - foot + 16, "text-anchor": "middle" }, tickText(column)));
  });
  svg.append(node("text", { x: left, y: height - 21 }, `${panel.xLabel}, ${panel.yLabel} downwards`));
  svg.append(node("text", { x: left, y: height - 5 }, `full colour: ±${shown(most)}`));
  const marker = node("rect", { class: "cursor", width: side, height: side, fill: "none", visibility: "hidden" });
  svg.append(marker);
  const inside = (value, count) => Math.max(0, Math.min(count - 1, Math.floor(value)));
  const place = (i) => [left + side * (i % columns.length), top + side * Math.floor(i / columns.length)];
  readable(svg, panel, {
    count: rows.length * columns.length,
    nearest: (px, py) => inside((py - top) / side, rows.length) * columns.length + inside((px - left) / side, columns.length),
    place: (i) => place(i).map((at) => at + side / 2),
    show: (i) => {
      const r = Math.floor(i / columns.length), c = i % columns.length, [x, y] = place(i);
      marker.setAttribute("x", x);
      marker.setAttribute("y", y);
      marker.setAttribute("visibility", "visible");
      return { title: panel.title, lines: [{ tint: "var(--measured)", text: `to ${rows[r]} from ${columns[c]}: ${shown(z[r][c], true)}` }] };
    },
    hide: () => marker.setAttribute("visibility", "hidden"),
  });
  return svg;
}
