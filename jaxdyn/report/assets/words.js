// The table of measures and the decoded directions.
function radios(title, choices, chosen, change) {
  const name = `choice-${++radios.made}`;
  return node("fieldset", { class: "switch" }, node("legend", {}, title),
    Object.entries(choices).map(([value, text]) => node("label", {},
      node("input", { type: "radio", name, value, checked: value === chosen, onchange: () => change(value) }), node("span", {}, text))));
}
radios.made = 0;

function picker(title, choices, chosen, change) {
  const select = node("select", { onchange: (event) => change(event.target.value) },
    choices.map(([value, text]) => node("option", { value, selected: value === chosen }, text)));
  return node("label", { class: "pick" }, title, select);
}

function measureTable(summary) {
  const state = { store: "0", metric: "raw", part: Object.keys(summary.parts)[0], layer: "0" };
  const controls = node("div", { class: "controls" }), place = node("div");
  const draw = () => {
    const part = (summary.values[state.store][state.metric] || {})[state.part] || {};
    const i = +state.layer;
    const trained = Object.values(part).some((v) => v.n5);
    const names = ["measured", "N0", "N1 ± sd", "excess over N1 [95 %]", "floor", ...(trained ? ["N5 ± sd", "less N5 [95 %]"] : [])];
    const rows = summary.measures.filter((measure) => part[measure.key]).map((measure) => {
      const v = part[measure.key], at = (key) => (v[key] ? v[key][i] : null), out = v.out && v.out[i];
      const cells = [
        [shown(at("mean"), false, true)],
        [shown(at("n0"), false, true)],
        [shown(at("n1"), false, true), has(at("n1")) ? node("small", {}, ` ±${shown(at("sd"), false, true)}`) : null],
        [out ? "● " : "", shown(at("excess"), true, true), has(at("excessLow")) ? node("small", {}, ` [${shown(at("excessLow"), true, true)}, ${shown(at("excessHigh"), true, true)}]`) : null],
        [shown(at("floor"), false, true)],
      ];
      if (trained) cells.push(
        [shown(at("n5"), false, true), has(at("n5Sd")) ? node("small", {}, ` ±${shown(at("n5Sd"), false, true)}`) : null],
        [v.n5Out && v.n5Out[i] ? "▲ " : "", shown(at("n5Excess"), true, true), has(at("n5ExcessLow")) ? node("small", {}, ` [${shown(at("n5ExcessLow"), true, true)}, ${shown(at("n5ExcessHigh"), true, true)}]`) : null]);
      const unit = measure.unit === "1" ? "" : `, ${measure.unit}`;
      return node("tr", { class: out ? "out" : false },
        node("th", { scope: "row" }, measure.title + unit, node("small", {}, measure.definition)),
        cells.map((cell, k) => node("td", { "data-name": names[k], class: k === 3 ? "excess" : false }, cell)));
    });
    place.replaceChildren(node("table", {}, node("thead", {}, node("tr", {}, ["measure", ...names].map((name) => node("th", { scope: "col" }, name)))),
      node("tbody", {}, rows)));
  };
  const set = (key) => (value) => {
    state[key] = value;
    if (key === "store") { state.layer = "0"; build(); }
    draw();
  };
  const build = () => {
    const layers = [["0", "mean over layers"], ...summary.layers[state.store].map((layer, i) => [String(i + 1), `layer ${layer}`])];
    controls.replaceChildren(
      ...(summary.stores.length > 1 ? [radios("store", { ...summary.stores }, state.store, set("store"))] : []),
      radios("part", summary.parts, state.part, set("part")),
      ...(Object.keys(summary.metrics).length > 1 ? [radios("metric", { raw: "raw", relative: "relative" }, state.metric, set("metric"))] : []),
      picker("layer", layers, state.layer, set("layer")));
  };
  build();
  draw();
  return [controls, place];
}

const KINDS = { output: "writes (left singular vectors of J − I)", input: "reads (right singular vectors of J − I)", eigenvector: "keeps (eigenvectors of J)" };

function visible(token) {
  if (token === "") return "∅";
  return token.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, (c) => ({ "\n": "↵", "\t": "⇥" })[c] || "\\x" + c.charCodeAt(0).toString(16).padStart(2, "0"))
    .replace(/^ | $/g, "␣");
}

function directionList(chart, group) {
  const place = node("div", { class: "words" });
  for (const kind of Object.keys(KINDS)) {
    const rows = chart.rows.filter((row) => row.group === group && row.kind === kind);
    if (!rows.length) continue;
    place.append(node("h3", {}, KINDS[kind]));
    for (const row of rows)
      place.append(node("span", {}, String(row.index + 1)), node("span", { class: "size" }, shown(row.size)),
        ...[["+", row.plus], ["−", row.minus]].map(([sign, words]) => node("span", { class: "tokens" }, `${sign} `, words.map((word) => node("span", { class: "token" }, visible(word))))));
  }
  return place;
}
