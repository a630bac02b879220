import { KEYS, h, mount, percent, pictures, unpack } from "../lab.js";

const TITLE = "Filter studio";
const BINS = 40;
const GOOD = "#0072b2";
const BAD = "#d55e00";
const HINT =
  "Each slider is a bound, once it is moved the same one for every category that has it; each chip switches its rule on or off. Blue outline: a good edit; orange and dashed: a bad one. Click one to see what is measured of it.";

function build(model, data, body) {
  const [urls, release] = pictures([...data.sources, ...data.outputs]);
  const count = data.sources.length;
  const [values, asked, good, chance] = [data.values, data.asked, data.good, data.chance].map(unpack);
  const width = data.measures.length;
  const value = (i, m) => values[i * width + m];
  const lucky = [...chance.keys()].sort((a, b) => chance[b] - chance[a]);
  const types = Object.keys(data.bounds);
  const isGood = (i) => good[i] === 1;
  let selected = Math.max(good.indexOf(0), 0); // a bad one has more to tell

  /** A category's bounds of a measure: those sides that it has, where they were moved to or its own. */
  const bounds = (type, name) =>
    (data.bounds[type][name] ?? [null, null]).map((own, which) => (own === null ? null : (model.get("bounds")[name][which] ?? own)));
  /** 0 within, −1 too low, 1 too high; edits that a rule does not ask about are within, and NaN is within nothing. */
  function side(i, m) {
    const { name } = data.measures[m];
    if (!asked[i * width + m] || model.get("off").includes(name)) return 0;
    const [x, [low, high]] = [value(i, m), bounds(data.types[i], name)];
    return low !== null && !(x >= low) ? -1 : high !== null && !(x <= high) ? 1 : 0;
  }
  const broken = (i) => data.measures.map((_, m) => m).filter((m) => side(i, m) !== 0);

  const tiles = data.outputs.map((_, i) =>
    h(
      "button",
      {
        class: isGood(i) ? "lab-tile" : "lab-tile lab-bad", "aria-label": `${isGood(i) ? "good" : "bad"}: ${data.instructions[i]}`,
        title: data.instructions[i], onclick: () => ((selected = i), drawDetail()),
      },
      h("img", { src: urls[count + i], alt: "" }),
    ),
  );
  const halves = ["kept", "dropped"].map((title) => {
    const note = h("span", { class: "lab-note lab-number" });
    const grid = h("div", { class: "lab-tiles lab-scroll" });
    return { note, grid, element: h("div", { class: "lab-main" }, h("h3", {}, title, note), grid) };
  });
  const table = h("table", { class: "lab-table" });
  const detail = h("div", { class: "lab-side lab-picked", "aria-live": "polite" });
  const rules = data.measures.map(rule);

  function rule(measure, m) {
    const known = [...Array(count).keys()].map((i) => value(i, m)).filter((x) => !Number.isNaN(x));
    const first = data.first[measure.name];
    const ends = [...known, ...first.filter((x) => x !== null)];
    const [least, most] = [Math.min(...ends), Math.max(...ends)];
    const span = most - least || 1;
    const at = (x) => (x - least) / span;
    const bars = [0, 1].map(() => new Array(BINS).fill(0));
    for (let i = 0; i < count; i++) {
      const x = value(i, m);
      if (!Number.isNaN(x)) bars[good[i]][Math.min(Math.floor(at(x) * BINS), BINS - 1)] += 1;
    }
    const tallest = Math.max(...bars[0], ...bars[1]);
    const canvas = h("canvas", { width: 4 * BINS, height: 48, role: "img", "aria-label": `${measure.title}: blue good, orange bad edits` });
    const chip = h("button", { onclick: toggle }, measure.title);
    const told = h("span", { class: "lab-note lab-number" });
    const sliders = ["at least", "at most"].map((label, which) => {
      if (first[which] === null) return null;
      const move = () => set(which, Number(slider.value));
      const slider = h("input", {
        ...KEYS, type: "range", min: least, max: most, step: "any", "aria-label": `${measure.title}, ${label}`, oninput: move,
      });
      return slider;
    });
    const sides = (which) => types.map((type) => bounds(type, measure.name)).filter((pair) => pair[which] !== null);
    function set(which, to) {
      const others = sides(which).map((pair) => pair[1 - which]).filter((bound) => bound !== null);
      const pair = [...model.get("bounds")[measure.name]];
      pair[which] = which === 0 ? Math.min(to, ...others) : Math.max(to, ...others); // no bound goes beyond the other
      model.set("bounds", { ...model.get("bounds"), [measure.name]: pair });
      model.save_changes();
      sliders[which].value = pair[which]; // equal bounds are no change that would be drawn
    }
    /** The widest bound on a side as it stands, and in words all of them: categories may have their own. */
    function standing(which) {
      const all = sides(which).map((pair) => pair[which]);
      if (!all.length) return [null, ""];
      const ends = [Math.min(...all), Math.max(...all)];
      const words = [...new Set(ends.map(round))].join(" to ");
      return [ends[which], `${"≥≤"[which]} ${words}`];
    }
    function toggle() {
      const off = model.get("off");
      model.set("off", off.includes(measure.name) ? off.filter((name) => name !== measure.name) : [...off, measure.name]);
      model.save_changes();
    }
    function draw() {
      const [[low, above], [high, below]] = [standing(0), standing(1)];
      const on = !model.get("off").includes(measure.name);
      chip.setAttribute("aria-pressed", String(on));
      [low, high].forEach((bound, which) => {
        if (!sliders[which]) return;
        sliders[which].value = bound;
        sliders[which].disabled = !on;
      });
      const lost = tiles.filter((_, i) => side(i, m) !== 0).length;
      const words = [above, below].filter(Boolean).join(", ");
      told.textContent = on ? `${words} ${measure.unit}; drops ${lost}` : "off";
      const pen = canvas.getContext("2d");
      pen.clearRect(0, 0, canvas.width, canvas.height);
      bars.forEach((bins, which) => {
        pen.fillStyle = which ? GOOD : BAD;
        bins.forEach((n, bin) => {
          const tall = n && Math.max(2, (n / tallest) * 46);
          pen.fillRect(4 * bin + 2 * (1 - which), 48 - tall, 2, tall);
        });
      });
      if (!on) return;
      pen.fillStyle = "rgba(128, 128, 128, 0.35)";
      if (low !== null) pen.fillRect(0, 0, at(low) * canvas.width, 48);
      if (high !== null) pen.fillRect(at(high) * canvas.width, 0, canvas.width, 48);
    }
    const controls = h("div", {}, ...sliders.filter(Boolean), told);
    const element = h("div", { class: "lab-rule" }, chip, canvas, controls);
    return { element, draw };
  }

  const round = (x) => (Math.abs(x) >= 100 ? x.toFixed(0) : Number(x.toPrecision(3)));
  const share = (part, whole) => (whole ? `${part} of ${whole} (${percent(part / whole)})` : "–");

  function drawTable(kept) {
    const whole = [isGood, (i) => !isGood(i)].map((is) => [...tiles.keys()].filter(is).length);
    const chosen = new Set(lucky.slice(0, kept.size));
    const lines = [["these bounds", kept], ["by chance, as many", chosen]].map(([name, set]) => {
      const parts = [isGood, (i) => !isGood(i)].map((is, which) => share([...set].filter(is).length, whole[which]));
      return h("tr", {}, h("td", {}, name), ...parts.map((part) => h("td", {}, part)));
    });
    table.replaceChildren(
      h("thead", {}, h("tr", {}, h("th", {}, ""), h("th", {}, "kept of the good"), h("th", {}, "kept of the bad"))),
      h("tbody", {}, ...lines),
    );
  }

  function drawDetail() {
    tiles.forEach((tile, i) => tile.setAttribute("aria-pressed", String(i === selected)));
    const pair = [["source", urls[selected]], ["edit", urls[count + selected]]].map(([name, url]) =>
      h("figure", {}, h("img", { src: url, alt: name }), h("figcaption", {}, name)),
    );
    const lines = data.measures.map((measure, m) => {
      const x = value(selected, m);
      const [low, high] = bounds(data.types[selected], measure.name);
      const off = side(selected, m);
      const verdict = off === 0 ? "" : off < 0 ? `below ${round(low)}` : `above ${round(high)}`;
      return h("tr", {}, h("td", {}, measure.title), h("td", {}, Number.isNaN(x) ? "–" : String(round(x))), h("td", { class: "lab-wrong" }, verdict));
    });
    const heading = h("p", {}, h("b", {}, `${isGood(selected) ? "good" : "bad"}, ${data.types[selected]}: `), `“${data.instructions[selected]}”`);
    detail.replaceChildren(heading, h("div", { class: "lab-edits lab-two" }, ...pair), h("table", { class: "lab-table" }, h("tbody", {}, ...lines)));
  }

  function draw() {
    const kept = new Set([...tiles.keys()].filter((i) => broken(i).length === 0));
    tiles.forEach((tile, i) => {
      const grid = halves[kept.has(i) ? 0 : 1].grid;
      if (tile.parentNode !== grid) grid.append(tile);
    });
    halves.forEach(({ note }, which) => (note.textContent = which ? count - kept.size : kept.size));
    rules.forEach((each) => each.draw());
    drawTable(kept);
    drawDetail();
  }

  const all = h("div", { class: "lab-rules" }, ...rules.map((each) => each.element), table);
  const hint = h("p", { class: "lab-hint" }, HINT);
  body.append(h("div", { class: "lab-row" }, all, detail));
  body.append(h("div", { class: "lab-row" }, ...halves.map((half) => half.element)), hint);
  model.on("change:bounds", draw);
  model.on("change:off", draw);
  draw();
  return () => {
    release();
    model.off("change:bounds", draw);
    model.off("change:off", draw);
  };
}

function render({ model, el }) {
  return mount(model, el, TITLE, build);
}

export default { render };
