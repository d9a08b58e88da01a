// Tables of words, with an interval beside each row, and specification curves.
function wordTable(chart) {
  const [head, ...rows] = chart.table, panel = chart.panels[0], one = panel && panel.series[0];
  const ends = one ? [...one.y, ...one.low, ...one.high].filter(has).map(Math.abs) : [];
  const most = Math.max(1.5, 1.1 * Math.max(0, ...ends));
  const names = one ? [...head, panel.title] : head;
  return node("table", { class: "words-table" }, node("thead", {}, node("tr", {}, names.map((name) => node("th", { scope: "col" }, name)))),
    node("tbody", {}, rows.map((row, i) => node("tr", {},
      node("th", { scope: "row" }, row[0]),
      row.slice(1).map((cell, k) => node("td", { "data-name": head[k + 1] }, cell)),
      one ? node("td", { "data-name": panel.title }, interval(one, i, most)) : null))));
}

function interval(one, i, most) {
  const width = 150, height = 22, x = scale(-most, most, 4, width - 4), y = height / 2;
  const svg = node("svg", { class: "interval", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": has(one.y[i]) ? `${shown(one.y[i], true)} margins` : "no margin" });
  svg.append(node("rect", { class: "band null", "--tint": "var(--null)", x: x(-1), y: 0, width: x(1) - x(-1), height }),
    node("line", { class: "zero", x1: x(0), x2: x(0), y1: 0, y2: height }));
  if (!has(one.y[i])) return svg;
  if (has(one.low[i])) svg.append(node("path", { class: "s", "--tint": tint(one), d: path([[x(one.low[i]), y], [x(one.high[i]), y]]) }));
  svg.append(node("circle", { class: "dot", "--tint": tint(one), cx: x(one.y[i]), cy: y, r: 3.6 }));
  return svg;
}

function specificationPanel(panel, width) {
  const count = panel.grid.x.length, names = panel.names;
  const values = panel.series.flatMap((one) => [...one.y, ...(one.low || []), ...(one.high || [])]).filter(has);
  let [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  const pad = (high - low || 1) * 0.06;
  [low, high] = [low - pad, high + pad];
  const left = 12 + 5.6 * Math.max(...names.map((name) => name.length)), row = 14, upper = 190;
  const height = upper + 18 + row * names.length;
  const x = scale(-0.6, count - 0.4, left, width - 8), y = scale(low, high, upper, 8);
  const svg = frame(panel, width, height);
  for (const value of ticks(low, high, 5)) {
    svg.append(node("line", { class: "axis", x1: left, x2: width - 8, y1: y(value), y2: y(value) }));
    svg.append(node("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, tickText(value)));
  }
  svg.append(node("line", { class: "zero", x1: left, x2: width - 8, y1: y(0), y2: y(0) }));
  const at = (one) => one.x || panel.x;
  for (const one of panel.series) {
    if (one.role === "null") {
      svg.append(node("rect", { class: "band null", "--tint": tint(one), x: left, width: width - 8 - left, y: y(one.high[0]), height: y(one.low[0]) - y(one.high[0]) }));
      continue;
    }
    at(one).forEach((place, i) => {
      if (has(one.low[i])) svg.append(node("path", { class: "s", "--tint": tint(one), d: path([[x(place), y(one.low[i])], [x(place), y(one.high[i])]]) }));
      svg.append(node("circle", { class: "dot", "--tint": tint(one), cx: x(place), cy: y(one.y[i]), r: 3 }));
    });
  }
  names.forEach((name, r) => {
    const level = upper + 20 + row * r;
    svg.append(node("text", { class: "choice", x: left - 6, y: level + 4, "text-anchor": "end" }, name));
    panel.grid.z[r].forEach((value, c) => { if (value) svg.append(node("circle", { class: "choice", cx: x(c), cy: level, r: 2.4 })); });
  });
  const cursor = node("line", { class: "cursor", y1: 8, y2: height, visibility: "hidden" });
  svg.append(cursor);
  readable(svg, panel, {
    count,
    nearest: (px) => [...Array(count).keys()].reduce((best, i) => (Math.abs(x(i) - px) < Math.abs(x(best) - px) ? i : best), 0),
    place: (i) => [x(i), 20],
    show: (i) => {
      for (const end of ["x1", "x2"]) cursor.setAttribute(end, x(i));
      cursor.setAttribute("visibility", "visible");
      const chosen = names.filter((_, r) => panel.grid.z[r][i]).join(", ");
      const lines = [];
      for (const one of panel.series) {
        const k = at(one).indexOf(i);
        if (one.role !== "null" && k >= 0) lines.push({ tint: tint(one), text: `${one.label}: ${shown(one.y[k], true)}${has(one.low[k]) ? ` [${shown(one.low[k], true)}, ${shown(one.high[k], true)}]` : ""}` });
      }
      return { title: `${panel.title}: ${chosen}`, lines };
    },
    hide: () => cursor.setAttribute("visibility", "hidden"),
  });
  return svg;
}
