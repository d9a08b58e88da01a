// Puts the page together from its embedded data, and draws again when the width changes.
function section(id, title, lead, caption, body, extra) {
  return node("section", { id, "aria-labelledby": `${id}-title` }, node("h2", { id: `${id}-title` }, title),
    lead ? node("p", { class: "lead" }, lead) : null,
    node("figure", {}, body, node("figcaption", {}, caption, extra)));
}

function links(name, rows, files) {
  const save = () => {
    const text = rows().map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
    const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    const anchor = node("a", { href: url, download: `${name}.csv` });
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  };
  return node("div", { class: "links" },
    node("button", { class: "link", type: "button", "data-csv": name, onclick: save }, "Numbers (CSV)"),
    (files || []).map(([text, href]) => node("a", { href }, text)),
    node("details", {}, node("summary", {}, "Command that made it"), node("pre", {}, DATA.commands.join("\n"))));
}

function quoted(value) {
  if (value === null || value === undefined) return "";
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function chartRows(chart) {
  if (chart.kind === "directions")
    return [["group", "kind", "direction", "size", "sign", "rank", "token"],
      ...chart.rows.flatMap((row) => [["+", row.plus], ["-", row.minus]].flatMap(([sign, words]) =>
        words.map((word, rank) => [chart.groups[row.group], row.kind, row.index + 1, row.size, sign, rank + 1, word])))];
  if (chart.kind === "table") return chart.table;
  const flow = chart.kind === "flow";
  const rows = [["group", "panel", "view", "store", "role", "series", "x", "y", ...(flow ? ["to x", "to y"] : ["low", "high"])]];
  for (const panel of chart.panels) {
    for (const one of panel.series)
      (one.x || panel.x).forEach((x, i) => rows.push([panel.group, panel.key, one.view || "", DATA.stores[one.store || 0], one.role, one.label, x,
        one.y[i], ...(flow ? [one.toX ? one.toX[i] : null, one.toY ? one.toY[i] : null] : [one.low ? one.low[i] : null, one.high ? one.high[i] : null])]));
    if (panel.grid)
      panel.grid.y.forEach((y, r) => panel.grid.x.forEach((x, c) => rows.push([panel.title, panel.key, "", "", "grid", `y = ${y}`, x, panel.grid.z[r][c], null, null])));
  }
  return rows;
}

function tableRows(summary) {
  const columns = ["mean", "low", "high", "n0", "n1", "sd", "excess", "excessLow", "excessHigh", "floor", "out",
    "n5", "n5Sd", "n5Excess", "n5ExcessLow", "n5ExcessHigh", "n5Out"];
  const rows = [["store", "metric", "part", "layer", "measure", ...columns]];
  summary.values.forEach((metrics, store) => {
    for (const [metric, parts] of Object.entries(metrics))
      for (const [part, measures] of Object.entries(parts))
        for (const [measure, v] of Object.entries(measures))
          ["mean over layers", ...summary.layers[store]].forEach((layer, i) =>
            rows.push([summary.stores[store], metric, part, layer, measure, ...columns.map((name) => (v[name] ? v[name][i] : null))]));
  });
  return rows;
}

function key(chart, panels, view) {
  const seen = new Map();
  for (const panel of panels)
    for (const one of panel.series) {
      if (one.view && one.view !== view) continue;
      const label = one.role === "fan" ? `single ${one.label.startsWith("network") ? "network" : "sample"}s` + (DATA.stores.length > 1 ? `, ${"AB"[one.store || 0]}` : "") : one.label;
      if (!seen.has(label)) seen.set(label, one);
    }
  const mark = (one) => {
    const svg = node("svg", { width: 26, height: 12, "aria-hidden": "true", "--thin": 1, "--tint": tint(one) });
    const solid = ["trace", "singular", "orientation"].includes(one.role);
    if (solid) svg.append(node("rect", { class: "bar", x: 2, y: 1, width: 22, height: 10 }));
    else if (["clouds", "field"].includes(chart.kind) || ["budget", "specification"].includes(chart.kind) || one.role === "points" || (chart.kind === "flow" && !one.toX)) svg.append(node("circle", { class: "dot", cx: 13, cy: 6, r: 3.5 }));
    else {
      if (banded(one)) svg.append(node("rect", { class: `band ${one.role}`, x: 1, y: 1, width: 24, height: 10 }));
      svg.append(node("path", { class: `s ${one.role}`, d: "M2 6H24" }));
    }
    return svg;
  };
  const items = [...seen].map(([label, one]) => node("li", {}, mark(one), label));
  if (["clouds", "field"].includes(chart.kind))
    items.push(node("li", {}, node("svg", { width: 26, height: 12, "aria-hidden": "true" }, node("circle", { class: "circle", cx: 13, cy: 6, r: 5 })), "unit circle"));
  return node("ul", { class: "key" }, items);
}

function drawer(chart) {
  const state = { view: chart.views.includes("raw") ? "raw" : "", group: Object.keys(chart.groups)[0] || "", big: 0 };
  const place = node("div"), controls = node("div", { class: "controls" });
  const draw = () => {
    if (chart.kind === "directions") return place.replaceChildren(directionList(chart, state.group));
    if (chart.kind === "table") return place.replaceChildren(wordTable(chart));
    const width = Math.max(260, place.clientWidth), narrow = width < 620;
    const grouped = Object.keys(chart.groups).length > 0;
    const panels = chart.panels.filter((panel) => !grouped || panel.group === state.group);
    const hero = grouped, plane = ["clouds", "field", "heat", "matrix", "path", "flow"].includes(chart.kind);
    const stacked = chart.name === "bottleneck" || narrow;
    const columns = hero ? (narrow ? 2 : 4) : plane ? (width < 460 ? 1 : Math.min(panels.length, width < 800 || (chart.kind === "path" && panels.length === 4) ? 2 : 3)) : stacked ? 1 : chart.kind === "specification" ? (width < 900 ? 1 : 2) : panels.length === 4 ? 2 : Math.min(panels.length, 3);
    const grid = node("div", { class: "grid", "--columns": columns });
    const labelled = !narrow && chart.kind !== "flow" && (hero || chart.name === "bottleneck");
    const cell = Math.floor((width - 14 * (columns - 1)) / columns);
    const ordered = hero ? [panels[state.big], ...panels.filter((_, i) => i !== state.big)] : panels;
    ordered.forEach((panel, i) => {
      if (!panel) return;
      const big = hero && i === 0, size = big ? width : cell;
      const svg = chart.kind === "matrix" ? matrixPanel(panel, size)
        : chart.kind === "specification" ? specificationPanel(panel, size)
        : chart.kind === "heat" ? heatPanel(chart, panel, size) : chart.kind === "path" ? pathPanel(chart, panel, size)
        : chart.kind === "flow" ? flowPanel(chart, panel, big ? Math.min(size, 640) : size)
        : plane ? planePanel(chart, panel, size)
        : linePanel(chart, panel, state.view, size, big || columns === 1 ? (narrow ? 270 : 370) : hero ? 170 : 300, labelled && (big || !hero));
      const enlarge = () => {
        state.big = panels.indexOf(panel);
        draw();
        place.querySelector(".panel.big svg")?.focus();
      };
      const title = hero && !big ? node("button", { type: "button", title: "Show large", onclick: enlarge }, panel.title) : panel.title;
      grid.append(node("div", { class: `panel${big ? " big" : ""}`, "data-key": panel.key }, node("h3", {}, title), svg));
    });
    place.replaceChildren(...(labelled ? [] : [key(chart, panels, state.view)]), grid);
  };
  const set = (name) => (value) => {
    state[name] = value;
    draw();
  };
  if (chart.views.length > 1) controls.append(radios("show", { raw: "raw", excess: "excess over N1" }, state.view, set("view")));
  const groups = Object.entries(chart.groups);
  if (groups.length > 1)
    controls.append(chart.kind === "directions" ? picker("layer", groups, state.group, set("group")) : radios(chart.name.startsWith("teleport") ? "show" : "part", chart.groups, state.group, set("group")));
  return { body: [...(controls.childNodes.length ? [controls] : []), place], draw };
}

const DATA = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("report");
if (DATA.summary) main.append(section("measures", "Measures beside their nulls", DATA.lead, DATA.summary.caption, measureTable(DATA.summary),
  links("measures", () => tableRows(DATA.summary), [])));
const drawers = DATA.charts.map((chart) => {
  const { body, draw } = drawer(chart);
  main.append(section(chart.name, chart.title, chart.lead, chart.caption, body, links(chart.name, () => chartRows(chart), DATA.files[chart.name])));
  return draw;
});
let wide = 0, waiting = 0;
const redraw = () => {
  if (main.clientWidth === wide) return;
  wide = main.clientWidth;
  for (const draw of drawers) draw();
};
new ResizeObserver(() => {
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(redraw);
}).observe(main);
redraw();
document.documentElement.dataset.drawn = DATA.charts.length;
