import { KEYS, Panel, h, heat, heatColours, mount, pictures, place, unpack } from "../lab.js";

const TITLE = "Fine-tuning";
const HINT = "The training goes on whatever becomes of this page: open it again, or evaluate the dashboard in any cell, and it shows where it is.";
const RECORDED = "This page has no kernel: it shows the training as it was when the page was written.";
const [WIDTH, HEIGHT] = [500, 210]; // of a chart, in its own units
const EDGE = { left: 52, right: 10, top: 10, bottom: 24 };
const MOST = 400; // points of a drawn line

const short = (value) => {
  const rounded = Number(value.toPrecision(2));
  return rounded && Math.abs(rounded) < 1e-2 ? rounded.toExponential() : String(rounded);
};
const clock = (seconds) => {
  const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
};

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Round numbers in [low, high], about four of them, each with its name. */
function ticks(low, high) {
  const rough = (high - low) / 4;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * unit >= rough) * unit;
  const digits = Math.max(0, -Math.floor(Math.log10(step * 1.001)));
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) {
    found.push([i * step, high < 1e-2 ? short(i * step) : (i * step).toFixed(digits)]);
  }
  return found;
}

/** A long line by the least and the greatest value of every stretch. */
function thinned(points) {
  const stretch = Math.ceil((2 * points.length) / MOST);
  if (stretch < 3) return points;
  const kept = [];
  for (let i = 0; i < points.length; i += stretch) {
    const part = points.slice(i, i + stretch);
    const by = (better) => part.reduce((best, each) => (better(each[1], best[1]) ? each : best));
    kept.push(...[by((a, b) => a < b), by((a, b) => a > b)].sort((a, b) => a[0] - b[0]));
  }
  return kept;
}

/** Lines over the steps. lines: name → class; from: the least y, if it is fixed; hover(step or null). */
class Chart {
  constructor({ title, lines, from, hover, read }) {
    Object.assign(this, { title, lines, from, hover, read, steps: 1, cursor: null });
    this.plot = svg("g", {});
    this.mark = svg("line", { class: "lab-cursor", y1: EDGE.top, y2: HEIGHT - EDGE.bottom, visibility: "hidden" });
    this.canvas = svg(
      "svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, ...KEYS, role: "application", "aria-label": title }, this.plot, this.mark,
    );
    const names = Object.entries(lines);
    const legend = names.length < 2 ? [] : names.map(([name, kind]) => h("span", { class: "lab-key" }, h("i", { class: kind }), name));
    this.element = h("figure", { class: "lab-chart" }, h("figcaption", {}, h("b", {}, title), ...legend), this.canvas);
    this.canvas.addEventListener("pointermove", (event) => this.move(this.at(event)));
    for (const name of ["pointerleave", "blur"]) this.canvas.addEventListener(name, () => this.move(null));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
  }

  x(step) {
    return EDGE.left + ((WIDTH - EDGE.left - EDGE.right) * (step - 1)) / Math.max(this.steps - 1, 1);
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) * WIDTH) / box.width;
    const step = 1 + ((x - EDGE.left) * (this.steps - 1)) / (WIDTH - EDGE.left - EDGE.right);
    return Math.min(Math.max(Math.round(step), 1), this.steps);
  }

  move(step) {
    if (step === this.cursor) return;
    this.hover(step);
    if (step !== null) this.canvas.setAttribute("aria-label", `${this.title}: ${this.read(step)}`);
  }

  key(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    this.move(Math.min(Math.max((this.cursor ?? 0) + by, 1), this.steps));
    event.preventDefault();
    event.stopPropagation(); // a notebook has plans of its own for these keys
  }

  point(step) {
    this.cursor = step;
    this.mark.setAttribute("visibility", step === null ? "hidden" : "visible");
    for (const end of ["x1", "x2"]) this.mark.setAttribute(end, this.x(step ?? 1));
  }

  /** values: for each line its points [step, y]; steps: how far the axis goes. */
  draw(values, steps) {
    this.steps = steps;
    const all = values.flat().map((point) => point[1]);
    const least = all.reduce((low, each) => Math.min(low, each), Infinity);
    const high = all.reduce((most, each) => Math.max(most, each), -Infinity);
    const low = this.from ?? least;
    const span = high > low ? high - low : Math.abs(high) || 1;
    const [bottom, top] = [this.from ?? low - 0.04 * span, high + 0.04 * span];
    const y = (value) => HEIGHT - EDGE.bottom - ((HEIGHT - EDGE.top - EDGE.bottom) * (value - bottom)) / (top - bottom);
    const drawn = [];
    const [left, right] = [EDGE.left, WIDTH - EDGE.right];
    for (const [value, name] of all.length ? ticks(bottom, top) : []) {
      drawn.push(svg("line", { class: "lab-grid", x1: left, x2: right, y1: y(value), y2: y(value) }));
      drawn.push(svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, name));
    }
    for (const step of new Set([1, Math.round((1 + steps) / 2), steps])) {
      const anchor = step === 1 ? "start" : step === steps ? "end" : "middle";
      drawn.push(svg("text", { x: this.x(step), y: HEIGHT - 6, "text-anchor": anchor }, step === 1 ? "step 1" : String(step)));
    }
    Object.values(this.lines).forEach((kind, line) => {
      const points = thinned(values[line]).map(([step, value]) => `${this.x(step).toFixed(1)},${y(value).toFixed(1)}`);
      drawn.push(svg("polyline", { class: `lab-line ${kind}`, points: points.join(" ") }));
      if (kind !== "lab-sparse" && points.length > 1) return;
      for (const [step, value] of values[line]) {
        drawn.push(svg("circle", { class: kind, cx: this.x(step), cy: y(value), r: 3 }));
      }
    });
    this.plot.replaceChildren(...drawn);
    this.point(this.cursor);
  }
}

function build(model, data, body) {
  const live = model.get("live");
  const ask = (kind, more) => model.send({ kind, ...more });
  const button = (text, act) => h("button", { onclick: act }, text);

  // Controls
  const start = button("Start", () => ask("start"));
  const pause = button("Pause", () => ask(model.get("status").state === "paused" ? "resume" : "pause"));
  const stop = button("Stop", () => ask("stop"));
  const bar = h("progress", { "aria-label": "steps done" });
  const count = h("span", { class: "lab-number" }); // no output, which is read aloud whenever it changes
  const state = h("b", { class: "lab-state", role: "status" });
  const controls = h("div", { class: "lab-buttons" }, ...(live ? [start, pause, stop] : []), bar, state, count);
  const folder = h("input", {
    type: "text", "aria-label": "folder to save to", value: model.get("folder"),
    onkeydown: (event) => event.stopPropagation(),
  });
  const keep = () => ask("save", { folder: folder.value });
  const saved = h("span", { class: "lab-note", role: "status" });
  const saving = h("div", { class: "lab-buttons" }, button("Save to", keep), folder, saved);

  let asked = -1;
  /** Ask for the steps that this page has missed; once, while no answer has come. */
  function catchUp() {
    const known = model.get("curves").length;
    if (live && known !== asked) ask("since", { known });
    asked = known;
  }
  function tell() {
    const status = model.get("status");
    const active = ["training", "paused", "stopping"].includes(status.state);
    start.disabled = active || status.state === "finished";
    const on = status.state === "failed" && data.checkpoints ? "Go on from the last checkpoint" : "Go on";
    start.textContent = status.done && !start.disabled ? on : "Start";
    pause.disabled = !active || status.state === "stopping";
    stop.disabled = pause.disabled;
    pause.textContent = status.state === "paused" ? "Resume" : "Pause";
    bar.max = status.steps;
    bar.value = status.done;
    if (state.textContent !== status.state) state.textContent = status.state;
    const left = active && status.left !== null ? `, ${clock(status.left)} left` : "";
    const editing = status.editing ? ", editing the samples" : "";
    count.textContent = `step ${status.done} of ${status.steps}${left}${editing}`;
    if (model.get("curves").length < status.done) catchUp();
  }
  const tellSaved = () => (saved.textContent = model.get("saved"));

  // Curves
  const detail = h("p", { class: "lab-note lab-say", "aria-live": "polite" });
  const validations = () => model.get("validations").filter((each) => Number.isFinite(each[1])); // one may have diverged
  const read = (step) => {
    const values = model.get("curves")[step - 1];
    if (!values) return `step ${step} is still to come`;
    const validation = validations().find((each) => each[0] === step);
    const told = `step ${step}: loss ${values[0].toFixed(3)}, smoothed ${values[1].toFixed(3)}, learning rate ${short(values[2])}`;
    return validation ? `${told}, validation ${validation[1].toFixed(3)}` : told;
  };
  const hover = (step) => {
    for (const chart of charts) chart.point(step);
    detail.textContent = step === null ? "" : read(step);
  };
  const losses = { loss: "lab-faint", smoothed: "lab-strong", validation: "lab-sparse" };
  const charts = [
    new Chart({ title: "loss", lines: losses, hover, read }),
    new Chart({ title: "learning rate", lines: { "learning rate": "lab-strong" }, from: 0, hover, read }),
  ];
  function drawCurves() {
    const curves = model.get("curves");
    let steps = 25; // the axis grows with the line
    while (steps < curves.length) steps *= 2;
    steps = Math.min(steps, model.get("status").steps);
    const line = (column) => curves.map((values, index) => [index + 1, values[column]]);
    charts[0].draw([line(0), line(1), validations()], steps);
    charts[1].draw([line(2)], steps);
  }
  /** New steps lengthen the model's own list, which every view of it shares, so whichever comes first does it. */
  function take({ kind, known, steps }) {
    if (kind !== "steps") return;
    const curves = model.get("curves");
    if (known > curves.length) return catchUp();
    curves.push(...steps.slice(curves.length - known));
    drawCurves();
  }

  // Samples
  const view = (name, picture) => h("figure", {}, h("figcaption", {}, name), picture);
  const cells = data.samples.map(({ said, target }) => {
    const [source, before, now, wanted] = ["source", "before", "now", "target"].map((name) => h("img", { alt: `${name}: ${said}` }));
    return { source, before, now, wanted: target && wanted };
  });
  const [fixed, releaseFixed] = pictures(data.samples.flatMap((sample) => [sample.source, sample.target]));
  const steps = { before: [], now: [] };
  const blocks = data.samples.map(({ said }, index) => {
    const { source, before, now, wanted } = cells[index];
    source.src = fixed[2 * index];
    if (wanted) wanted.src = fixed[2 * index + 1];
    const [first, last] = [view("before", before), view("now", now)];
    steps.before.push(first.firstChild);
    steps.now.push(last.firstChild);
    const row = h("div", { class: "lab-edits" }, view("source", source), first, last, ...(wanted ? [view("target", wanted)] : []));
    return h("section", { class: "lab-sample" }, h("p", {}, `“${said}”`), row);
  });
  const release = { before: () => {}, now: () => {} };
  function drawEdits(name) {
    const edits = model.get(name);
    const urls = edits.pictures ? pictures(edits.pictures) : [[], () => {}];
    release[name]();
    release[name] = urls[1];
    cells.forEach((cell, index) => {
      cell[name].hidden = !edits.pictures;
      if (edits.pictures) cell[name].src = urls[0][index];
    });
    const at = edits.pictures ? (edits.step ? `, step ${edits.step}` : "") : " –";
    for (const caption of steps[name]) caption.textContent = `${name}${at}`;
    drawHeat();
  }

  // Heat maps
  const colours = heatColours(data.palette, data.palette.share);
  const look = h("span", { class: "lab-note", "aria-live": "polite" });
  const panels = {};
  const chips = data.words.map((word) =>
    h("button", { class: "lab-chip", onclick: () => (model.set("word", word), model.save_changes()) }, word),
  );
  const maps = h("div", { class: "lab-row lab-heats" });
  function drawHeat() {
    const number = data.words.indexOf(model.get("word"));
    chips.forEach((chip, index) => chip.setAttribute("aria-pressed", String(index === number)));
    const shown = ["before", "now"].filter((name) => model.get(name).heats); // the first may have been cancelled
    for (const name of shown) {
      const { heats, step } = model.get(name);
      const all = unpack(heats);
      const [, rows, columns] = all.shape;
      panels[name] ??= new Panel({ title: `heat map ${name}`, rows, columns, ratio: data.ratio, hover: point });
      panels[name].values = all.subarray(number * rows * columns, (number + 1) * rows * columns);
      panels[name].show(fixed[0], heat(panels[name].values, colours));
      panels[name].caption.textContent = `step ${step}`;
    }
    if (maps.children.length < shown.length) maps.replaceChildren(...shown.map((name) => panels[name].element));
  }
  function point(cell) {
    const drawn = ["before", "now"].filter((name) => panels[name]);
    for (const name of drawn) panels[name].mark(cell === null ? [] : [{ cell, kind: "here" }]);
    const said = (name) => `${panels[name].values[cell].toFixed(2)} ${name}`;
    look.textContent = cell === null ? "" : `${place(cell, panels[drawn[0]].columns)}: ${drawn.map(said).join(", ")}`;
  }

  body.append(h("p", { class: "lab-note" }, data.about), controls, ...(live ? [saving] : []));
  body.append(h("div", { class: "lab-row" }, ...charts.map((chart) => chart.element)), detail);
  body.append(h("div", { class: "lab-samples" }, ...blocks));
  body.append(h("div", { class: "lab-chips" }, h("span", {}, `Where “${data.samples[0].said}” looks:`), ...chips), maps, look);
  body.append(h("p", { class: "lab-hint" }, live ? HINT : RECORDED));

  const heard = {
    "msg:custom": take,
    "change:status": tell,
    "change:curves": drawCurves,
    "change:validations": drawCurves,
    "change:before": () => drawEdits("before"),
    "change:now": () => drawEdits("now"),
    "change:word": drawHeat,
    "change:saved": tellSaved,
    "change:folder": () => (folder.value = model.get("folder")),
  };
  for (const [event, act] of Object.entries(heard)) model.on(event, act);
  tell();
  tellSaved();
  drawCurves();
  ["before", "now"].forEach(drawEdits);
  return () => {
    releaseFixed();
    release.before();
    release.now();
    for (const [event, act] of Object.entries(heard)) model.off(event, act);
  };
}

function render({ model, el }) {
  return mount(model, el, TITLE, build);
}

export default { render };
