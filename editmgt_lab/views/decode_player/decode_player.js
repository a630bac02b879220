import { Panel, bitmap, h, heat, heatColours, mount, patch, percent, pictures, place, stepBar, unpack } from "../lab.js";

const TITLE = "Decode player";

function build(model, data, body) {
  const [rows, columns] = data.grid;
  const cells = rows * columns;
  const names = ["states", "sampled", "confidence", "candidates", "probabilities", "taken", "computed", "codes", "patches"];
  const run = Object.fromEntries(names.map((name) => [name, unpack(data[name])]));
  const top = run.candidates.shape[3];
  const source = unpack(data.source_tokens);
  const palette = heatColours(data.palette);
  const indices = new Map([...run.codes].map((code, index) => [code, index]));
  const [urls, release] = pictures(data.previews);
  let hovered = null;

  const step = () => Math.min(model.get("step"), data.previews.length - 1);
  const at = (name, of = step()) => run[name].subarray(of * cells, (of + 1) * cells);
  const ordered = () => data.order !== "confidence" && step() < data.previews.length - 1; // the last has no order
  const kind = () => (model.get("colour_by") === "computed" ? "computed" : "states"); // what the legend is of
  const read = (cell) => `${place(cell, columns)}, ${data.legends[kind()][at(kind())[cell]][0]}`;
  const reach = { rows, columns, ratio: data.ratio, read, hover, pick };
  const preview = new Panel({ title: "picture", ...reach });
  const states = new Panel({ title: "tokens", ...reach });
  const detail = h("div", { class: "lab-detail", "aria-live": "polite" });
  const legend = h("div", { class: "lab-legend" });
  const views = ["state", "confidence", "computed"].map((name) =>
    h("button", { class: "lab-tab", onclick: () => (model.set("colour_by", name), model.save_changes()) }, name),
  );
  const strip = h("div", { class: "lab-strip", role: "group", "aria-label": "every step" });
  const frames = urls.map((url, index) => {
    const name = `step ${index + 1}`;
    const frame = h("button", { class: "lab-thumb", "aria-label": name, title: name, onclick: () => go(index) });
    frame.append(h("img", { src: url, alt: "" }), h("span", { class: "lab-shares" }), String(index + 1));
    return frame;
  });
  strip.append(...frames);
  const [bar, stop] = stepBar(model, urls.length, true);

  function go(index) {
    model.set("step", index);
    model.save_changes();
  }
  function hover(cell) {
    hovered = cell;
    tell();
  }
  function pick(cell) {
    model.set("cell", cell === model.get("cell") ? -1 : cell);
    model.save_changes();
  }

  /** The entries of the legend, [name, colour, how many cells of a step]. */
  function counted(of) {
    const values = at(kind(), of);
    return data.legends[kind()].map(([name, colour], i) => [name, colour, values.reduce((sum, each) => sum + (each === i), 0)]);
  }

  /** Colours of the token panel: by a legend, or by confidence among the tokens that competed. */
  function colours() {
    if (model.get("colour_by") !== "confidence") {
      return Uint8Array.from([...at(kind())].flatMap((each) => data.legends[kind()][each][1]));
    }
    const confidence = [...at("confidence")];
    const least = Math.min(...confidence.filter(Number.isFinite));
    const pixels = heat(confidence.map((value) => (Number.isFinite(value) ? value : least)), palette);
    confidence.forEach((value, cell) => Number.isFinite(value) || pixels.fill(0, 4 * cell, 4 * cell + 4));
    return pixels;
  }

  function draw() {
    preview.show(urls[step()]);
    states.show(null, colours());
    views.forEach((tab) => tab.setAttribute("aria-pressed", tab.textContent === model.get("colour_by")));
    legend.hidden = model.get("colour_by") === "confidence";
    scale.hidden = !legend.hidden;
    [low.textContent, high.textContent] = ordered() ? ["goes later", "goes first"] : ["less sure", "surer"];
    legend.replaceChildren(...counted(step()).map(([name, colour, count]) => {
      const number = h("span", { class: "lab-number" }, String(count));
      return h("span", {}, h("i", { style: `background: rgb(${colour})` }), name, " ", number);
    }));
    frames.forEach((frame, index) => {
      frame.setAttribute("aria-current", index === step() ? "step" : "false");
      const share = ([, colour, count]) => h("i", { style: `width: ${(100 * count) / cells}%; background: rgb(${colour})` });
      frame.querySelector(".lab-shares").replaceChildren(...counted(index).map(share));
    });
    const current = frames[step()];
    strip.scrollLeft = current.offsetLeft - strip.offsetLeft - strip.clientWidth / 2 + current.clientWidth / 2;
    tell();
  }

  function tell() {
    const picked = model.get("cell");
    const cell = hovered ?? picked;
    const marks = [{ cell: picked, kind: "picked" }, { cell: hovered ?? -1, kind: "here" }];
    for (const panel of [preview, states]) panel.mark(marks.filter((mark) => mark.cell >= 0));
    detail.replaceChildren(...(cell < 0 ? [h("p", { class: "lab-hint" }, HINT)] : about(cell)));
  }

  function about(cell) {
    const [state, colour] = data.legends.states[at("states")[cell]];
    const confidence = at("confidence")[cell];
    const token = at("sampled")[cell];
    const competed = Number.isFinite(confidence);
    const late = ordered() ? "its turn has not come" : "was not confident enough";
    const sayings = {
      masked: competed
        ? `token ${token} was drawn, but ${late}: masked again`
        : `token ${token}, decided before, has become improbable: masked again`,
      "just decided": `token ${token} was drawn and stays`,
      held: `the source’s token ${source?.[cell]} is held`,
      kept: `token ${token}, decided in an earlier step`,
    };
    const rows = [];
    for (let i = 0; i < top; i++) {
      const index = (step() * cells + cell) * top + i;
      rows.push(candidate(run.candidates[index], run.probabilities[index], token));
    }
    if (!rows.some((row) => row.ariaCurrent === "true")) rows.push(candidate(token, at("taken")[cell], token));
    const noisy = step() < data.previews.length - 1 ? "log p + noise" : "log p";
    const [what, why] = ordered() ? ["priority", `by the order ${data.order}`] : ["confidence", noisy];
    const rank = competed ? `${what} ${confidence.toFixed(2).replace("-", "−")} (${why})` : "did not compete in this step";
    const cached = at("computed")[cell] ? "" : "; not computed, from the cache";
    return [
      h("h3", {}, h("i", { style: `background: rgb(${colour})` }), place(cell, columns)),
      h("p", {}, `${state}: ${sayings[state]}; ${rank}${cached}`),
      h("div", { class: "lab-candidates", role: "list", "aria-label": "most probable tokens" }, ...rows),
    ];
  }

  function candidate(code, probability, token) {
    const row = h("div", { role: "listitem", "aria-current": String(code === token) });
    const width = `width: ${Math.max(100 * probability, 0.5)}%`;
    row.append(patch(run.patches, indices.get(code), `token ${code}`), h("span", { class: "lab-number" }, String(code)));
    row.append(h("span", { class: "lab-bar" }, h("i", { style: width })), h("span", {}, percent(probability)));
    return row;
  }

  const [low, high] = [h("span"), h("span")];
  const scale = h("div", { class: "lab-legend" }, low, bitmap(heat([...palette.keys()], palette), 256, 1), high);
  scale.append("blank: did not compete");
  const tabs = h("div", { class: "lab-tabs", role: "group", "aria-label": "colour the tokens by" }, ...views);
  states.element.querySelector("figcaption").append(tabs);
  const side = h("aside", { class: "lab-side" }, h("b", {}, "what the network proposes"), detail);
  body.append(h("div", { class: "lab-row" }, preview.element, states.element, side), legend, scale, bar, strip);
  const heard = ["step", "cell", "colour_by"];
  heard.forEach((name) => model.on(`change:${name}`, draw));
  draw();
  return () => {
    stop();
    release();
    heard.forEach((name) => model.off(`change:${name}`, draw));
  };
}

const HINT = "Point at a cell, or move over the grid with the arrow keys. A click keeps the cell while the steps go on.";

function render({ model, el }) {
  return mount(model, el, TITLE, build);
}

export default { render };
