import { KEYS, Panel, h, heat, heatColours, mount, percent, pictures, place, unpack } from "../lab.js";

const TITLE = "Hold studio";
const STEP = 0.01;
const HINT = "Move λ: what lies below it turns blue at once. Let go, and the edit is made anew; then blue is what it held, beside a random hold of the same size.";
const RECORDED = "This page has no kernel: the recorded λ can be compared, new ones need the notebook.";

function build(model, data, body) {
  const [[source], release] = pictures([data.source]);
  const values = unpack(data.heat);
  const [rows, columns] = values.shape;
  const palette = heatColours(data.palette, data.palette.share);
  const read = (cell) => `${place(cell, columns)}, heat ${values[cell].toFixed(2)}`;
  const common = { rows, columns, ratio: data.ratio, read, hover: tell };
  const titles = ["heat map", "held", ...data.ways.map((way) => `held ${way}`)];
  const [map, held, ...edits] = titles.map((title) => new Panel({ title, ...common }));
  const slider = h("input", {
    ...KEYS, type: "range", min: 0, max: 1, step: STEP, "aria-label": "hold threshold λ",
    oninput: () => move(Number(slider.value), false), onchange: () => move(Number(slider.value), true),
  });
  const value = h("output", { class: "lab-number" });
  const table = h("table", { class: "lab-table" });
  const detail = h("span", { class: "lab-note", "aria-live": "polite" });
  let [urls, releaseUrls] = [[], () => {}];

  function move(to, rest) {
    model.set("threshold", to);
    model.save_changes();
    if (rest && model.get("live")) model.send({ kind: "hold", threshold: to });
  }
  function tell(cell) {
    detail.textContent = cell === null ? "" : read(cell);
    const marks = cell === null ? [] : [{ cell, kind: "here" }];
    for (const panel of [map, held, ...edits]) panel.mark(marks);
  }
  const rounded = (threshold) => Number(threshold.toPrecision(3)); // as the kernel does it
  const said = (threshold) => (String(rounded(threshold)).length < 4 ? threshold.toFixed(2) : String(rounded(threshold)));
  const nearest = () => {
    const away = (result) => Math.abs(result.threshold - model.get("threshold"));
    return model.get("results").reduce((best, each) => (away(each) < away(best) ? each : best));
  };

  function drawResults() {
    releaseUrls();
    const results = model.get("results");
    if (!results.length) return draw();
    [urls, releaseUrls] = pictures(results.flatMap((result) => result.pictures));
    const names = Object.keys(results[0].numbers[0]);
    const head = h("tr", {}, h("th", {}, "λ"), h("th", {}, "held"));
    for (const way of data.ways) for (const name of names) head.append(h("th", {}, `${name}, ${way}`));
    const lines = results.map((result) => {
      const line = h("tr", { onclick: () => move(result.threshold, false) });
      line.append(h("td", {}, h("button", {}, said(result.threshold))), h("td", {}, percent(result.held)));
      for (const numbers of result.numbers) {
        for (const name of names) line.append(h("td", {}, numbers[name] === null ? "–" : numbers[name].toFixed(name === "score" ? 1 : 4)));
      }
      return line;
    });
    table.replaceChildren(h("thead", {}, head), h("tbody", {}, ...lines));
    draw();
  }

  function draw() {
    const [threshold, results] = [model.get("threshold"), model.get("results")];
    slider.value = threshold;
    const made = results.find((result) => result.threshold === rounded(threshold));
    const blue = made ? unpack(made.cells) : values.map((each) => each < threshold);
    const pixels = new Uint8ClampedArray(4 * values.length);
    let count = 0;
    blue.forEach((each, cell) => {
      if (!each) return;
      pixels.set(data.veil, 4 * cell);
      count += 1;
    });
    held.show(source, pixels);
    held.frame.classList.remove("lab-grey");
    held.caption.textContent = `${percent(count / values.length)} ${made ? "held" : "below λ"}, in blue`;
    value.textContent = `λ = ${said(threshold)}`;
    if (!results.length) return;
    const shown = nearest();
    const at = results.indexOf(shown);
    edits.forEach((panel, way) => {
      panel.show(urls[data.ways.length * at + way]);
      panel.caption.textContent = `λ = ${said(shown.threshold)}`;
    });
    [...table.tBodies[0].rows].forEach((line, index) => line.setAttribute("aria-current", String(index === at)));
  }

  map.show(source, heat(values, palette));
  const bar = h("div", { class: "lab-steps" }, "λ", slider, value, detail);
  const hint = h("p", { class: "lab-hint" }, model.get("live") ? HINT : RECORDED);
  body.append(h("div", { class: "lab-row" }, map.element, held.element, ...edits.map((panel) => panel.element)), bar, h("div", { class: "lab-wide" }, table), hint);
  model.on("change:results", drawResults);
  model.on("change:threshold", draw);
  drawResults();
  return () => {
    release();
    releaseUrls();
    model.off("change:results", drawResults);
    model.off("change:threshold", draw);
  };
}

function render({ model, el }) {
  return mount(model, el, TITLE, build);
}

export default { render };
