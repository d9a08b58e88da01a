// What a reader learns from a panel by pointing at it, or by focusing it and pressing the arrow keys.
function frame(panel, width, height) {
  return node("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "img",
                       "aria-label": `${panel.title}. Arrow keys read the values.` });
}

function readable(svg, panel, on) {
  let index = 0;
  const tip = document.getElementById("tip"), say = document.getElementById("say");
  const reveal = (i, py, spoken) => {
    index = Math.max(0, Math.min(Math.max(0, on.count - 1), i));
    const { title, lines } = on.show(index, py);
    tip.replaceChildren(node("b", {}, title), ...lines.map((line) => node("div", { "--tint": line.tint }, node("i"), node("span", {}, line.text))));
    tip.hidden = false;
    const box = svg.getBoundingClientRect(), factor = box.width / svg.viewBox.baseVal.width;
    const [px, top] = on.place(index);
    const x = box.left + px * factor, room = document.documentElement.clientWidth;
    const left = x + 14 + tip.offsetWidth < room ? x + 14 : Math.max(4, x - 14 - tip.offsetWidth);
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${box.top + top * factor + scrollY}px`;
    if (spoken) say.textContent = [title, ...lines.map((line) => line.text)].join("; ");
  };
  const conceal = () => {
    on.hide();
    tip.hidden = true;
  };
  const point = (event) => {
    const box = svg.getBoundingClientRect(), factor = svg.viewBox.baseVal.width / box.width;
    const px = (event.clientX - box.left) * factor, py = (event.clientY - box.top) * factor;
    reveal(on.nearest(px, py), py, false);
  };
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
  svg.addEventListener("pointerleave", conceal);
  svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) reveal(index, null, true); });
  svg.addEventListener("blur", conceal);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") conceal();
    if (step === undefined) return;
    event.preventDefault();
    reveal(step === -Infinity ? 0 : step === Infinity ? on.count - 1 : index + step, null, true);
  });
}
