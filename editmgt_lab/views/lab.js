// What the widgets share: elements, recorded arrays, panels with a grid, the bar of steps, and the page without kernel.

/** An element: h("button", { class: "lab-chip", onclick: f }, "text", child). */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const TYPES = { uint8: Uint8Array, int32: Int32Array, float32: Float32Array, float64: Float64Array };

/** A recorded array: typed, flat, with its shape; null where nothing was recorded. */
export function unpack(packed) {
  if (!packed) return null;
  const { dtype, shape, bytes } = packed;
  const copy = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  return Object.assign(new TYPES[dtype](copy), { shape });
}

/** The addresses of recorded pictures, and a function that gives them back. */
export function pictures(list) {
  const urls = list.map((bytes) => bytes && URL.createObjectURL(new Blob([bytes], { type: "image/png" })));
  return [urls, () => urls.forEach((url) => url && URL.revokeObjectURL(url))];
}

export const percent = (share) =>
  share === 0 ? "0%" : share >= 0.0995 ? `${Math.round(share * 100)}%` : share >= 0.00095 ? `${(share * 100).toFixed(1)}%` : "<0.1%";

export const place = (cell, columns) => `row ${Math.floor(cell / columns) + 1}, column ${(cell % columns) + 1}`;

/** The heat map's colours, uint8 [256, 3], as 256 words of RGBA; share: how much of one covers what it lies on. */
export function heatColours(packed, share = 1) {
  const [palette, alpha] = [unpack(packed), Math.round(255 * share)];
  const bytes = new Uint8ClampedArray(1024);
  for (let i = 0; i < 256; i++) bytes.set([...palette.subarray(3 * i, 3 * i + 3), alpha], 4 * i);
  return new Uint32Array(bytes.buffer);
}

/** Numbers → RGBA on the heat map's colours, from their least to their greatest. */
export function heat(values, colours) {
  let low = Infinity;
  let high = -Infinity;
  for (let i = 0; i < values.length; i++) {
    low = Math.min(low, values[i]);
    high = Math.max(high, values[i]);
  }
  const scale = high > low ? 255 / (high - low) : 0;
  const pixels = new Uint32Array(values.length);
  for (let i = 0; i < values.length; i++) pixels[i] = colours[Math.round((values[i] - low) * scale)];
  return new Uint8ClampedArray(pixels.buffer);
}

/** A canvas of columns × rows px with these RGBA or, three to a pixel, RGB values; CSS enlarges it by squares. */
export function bitmap(values, columns, rows) {
  const canvas = h("canvas", { width: columns, height: rows });
  const image = new ImageData(columns, rows);
  if (values.length === image.data.length) image.data.set(values);
  else for (let i = 0; i < columns * rows; i++) image.data.set([...values.subarray(3 * i, 3 * i + 3), 255], 4 * i);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** One code as a small square. patches: uint8 [n, f, f, 3]. */
export function patch(patches, index, name) {
  const side = patches.shape[1];
  const canvas = bitmap(patches.subarray(index * side * side * 3, (index + 1) * side * side * 3), side, side);
  canvas.className = "lab-patch";
  canvas.title = name;
  return canvas;
}

const MARKS = {
  here: [["#000", 4], ["#fff", 2]],
  picked: [["#fff", 5], ["#7c3aed", 3]],
  among: [["#7c3aed", 2]],
  same: [["#000", 2], ["#fff", 1]],
};

/** For what has keys of its own: a notebook would take some before they come here. */
export const KEYS = { tabindex: 0, "data-lm-suppress-shortcuts": "true" };

/**
 * A picture under a grid of cells that the pointer and the arrow keys move over.
 * hover(cell or null), pick(cell, event): the cell's number, row by row; read(cell): its name for screen readers;
 * gap: px between cells, a wide one in the colour of the page.
 */
export class Panel {
  constructor({ title, rows, columns, ratio, hover, pick, read, gap = 0.5 }) {
    Object.assign(this, { rows, columns, hover, pick, read, gap, cursor: null, marks: [], overlay: null });
    this.image = h("img", { alt: "", draggable: "false" });
    this.canvas = h("canvas", { ...KEYS, role: "application", "aria-label": title });
    this.caption = h("span", { class: "lab-note" });
    this.frame = h("div", { class: "lab-frame", style: `aspect-ratio: ${ratio}` }, this.image, this.canvas);
    this.element = h("figure", { class: "lab-panel" }, h("figcaption", {}, h("b", {}, title), this.caption), this.frame);
    this.title = title;
    this.canvas.addEventListener("pointermove", (event) => this.move(this.at(event)));
    this.canvas.addEventListener("pointerleave", () => this.move(null));
    this.canvas.addEventListener("blur", () => this.move(null));
    this.canvas.addEventListener("click", (event) => this.pick?.(this.at(event), event));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.watch = new ResizeObserver(() => this.paint());
    this.watch.observe(this.canvas);
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const inside = (share, count) => Math.min(Math.max(Math.floor(share * count), 0), count - 1);
    const row = inside((event.clientY - box.top) / box.height, this.rows);
    return row * this.columns + inside((event.clientX - box.left) / box.width, this.columns);
  }

  move(cell) {
    if (cell === this.cursor) return;
    this.cursor = cell;
    if (cell !== null && this.read) this.canvas.setAttribute("aria-label", `${this.title}: ${this.read(cell)}`);
    this.hover?.(cell);
  }

  key(event) {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (event.key in steps) {
      const [down, right] = steps[event.key];
      const cell = this.cursor ?? 0;
      const row = Math.min(Math.max(Math.floor(cell / this.columns) + down, 0), this.rows - 1);
      const column = Math.min(Math.max((cell % this.columns) + right, 0), this.columns - 1);
      this.move(this.cursor === null ? 0 : row * this.columns + column);
    } else if ((event.key === "Enter" || event.key === " ") && this.cursor !== null) {
      this.pick?.(this.cursor, event);
    } else return;
    event.preventDefault();
    event.stopPropagation(); // a notebook has plans of its own for these keys
  }

  /** What lies under the grid: a picture's address, and RGBA or RGB values of columns × rows over it, or null. */
  show(url, values = null, columns = this.columns, rows = this.rows) {
    this.image.hidden = !url;
    if (url && this.image.src !== url) this.image.src = url;
    this.overlay = values && bitmap(values, columns, rows);
    this.frame.classList.toggle("lab-grey", Boolean(url && values));
    this.paint();
  }

  /** Outlined cells: [{ cell, kind }], kind one of MARKS. */
  mark(marks) {
    this.marks = marks;
    this.paint();
  }

  paint() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width) return;
    const density = window.devicePixelRatio || 1;
    this.canvas.width = width * density;
    this.canvas.height = height * density;
    const pen = this.canvas.getContext("2d");
    pen.scale(density, density);
    pen.imageSmoothingEnabled = false;
    if (this.overlay) pen.drawImage(this.overlay, 0, 0, width, height);
    const [across, down] = [width / this.columns, height / this.rows];
    const paper = getComputedStyle(this.canvas).getPropertyValue("--paper");
    pen.strokeStyle = this.gap > 1 ? paper : `rgba(255, 255, 255, ${Math.min(across / 40, 0.35)})`; // many are fainter
    pen.lineWidth = this.gap;
    pen.beginPath();
    for (let i = 1; i < this.columns; i++) pen.rect(i * across, -1, 0, height + 2);
    for (let i = 1; i < this.rows; i++) pen.rect(-1, i * down, width + 2, 0);
    pen.stroke();
    for (const { cell, kind } of this.marks) {
      const [x, y] = [(cell % this.columns) * across, Math.floor(cell / this.columns) * down];
      for (const [colour, line] of MARKS[kind]) {
        pen.strokeStyle = colour;
        pen.lineWidth = line;
        pen.strokeRect(x + 1, y + 1, across - 2, down - 2);
      }
    }
  }
}

/** The bar of steps: back, play, on, a slider, "step 3 of 12". The model's trait `step` counts from 0. */
export function stepBar(model, count, playing) {
  let timer = null;
  const step = () => Math.min(model.get("step"), count - 1);
  const go = (to) => {
    model.set("step", Math.min(Math.max(to, 0), count - 1));
    model.save_changes();
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    tell();
  };
  const play = () => {
    if (timer) return stop();
    if (step() === count - 1) go(0);
    timer = setInterval(() => {
      if (step() < count - 1) go(step() + 1);
      if (step() === count - 1) stop();
    }, 600);
    tell();
  };
  const button = (label, text, act) => h("button", { "aria-label": label, title: label, onclick: act }, text);
  const slide = (to) => (stop(), go(to));
  const by = (offset) => () => slide(step() + offset);
  const player = button("play", "▶", play);
  const slider = h("input", {
    ...KEYS, type: "range", min: 0, max: count - 1, "aria-label": "step", oninput: () => slide(Number(slider.value)),
  });
  const label = h("output", { class: "lab-number" });
  function tell() {
    slider.value = step();
    slider.setAttribute("aria-valuetext", `step ${step() + 1} of ${count}`);
    label.textContent = `step ${step() + 1} of ${count}`;
    player.textContent = timer ? "❚❚" : "▶";
    for (const name of ["aria-label", "title"]) player.setAttribute(name, timer ? "pause" : "play");
  }
  model.on("change:step", tell);
  tell();
  const element = h("div", { class: "lab-steps" });
  element.append(button("one step back", "◀◀", by(-1)), ...(playing ? [player] : []));
  element.append(button("one step on", "▶▶", by(1)), slider, label);
  return [element, () => (clearInterval(timer), model.off("change:step", tell))];
}

/**
 * The widget's frame: title, progress, cancel, message; build(model, data, body) fills it and returns how to leave.
 * Where it throws, its listeners to that model are taken away, and the error stays in sight until there is new data.
 */
export function mount(model, el, title, build) {
  const say = h("span", { class: "lab-message", role: "status" });
  const bar = h("progress", { max: 1, "aria-label": "progress" });
  const cancel = h("button", { onclick: () => model.send({ kind: "cancel" }) }, "Cancel");
  const again = h("button", { onclick: () => model.send({ kind: "again" }) }, "Begin again");
  const quote = h("span", { class: "lab-quote" });
  const work = h("div", { class: "lab-work" }, bar, cancel, again, say);
  const body = h("div", { class: "lab-body" });
  const root = h("section", { class: "lab", "aria-label": title });
  root.append(h("header", {}, h("h2", {}, title), quote), work, body);
  let leave = () => {};
  let broken = "";

  function tell() {
    const [message, busy] = [broken || model.get("message"), model.get("busy")];
    bar.value = model.get("progress");
    bar.hidden = cancel.hidden = !busy;
    again.hidden = busy || !message || !model.get("live") || Object.keys(model.get("data")).length > 0;
    work.hidden = !busy && !message;
    say.textContent = message;
    say.classList.toggle("lab-wrong", Boolean(broken) || model.get("wrong"));
  }
  function rebuild() {
    leave();
    leave = () => {};
    broken = "";
    body.replaceChildren();
    const data = model.get("data");
    quote.textContent = data.instruction ? `“${data.instruction}”` : "";
    const heard = [];
    const on = (...each) => (heard.push(each), model.on(...each));
    try {
      if (Object.keys(data).length) leave = build(Object.assign(Object.create(model), { on }), data, body);
    } catch (error) {
      heard.forEach((each) => model.off(...each));
      broken = String(error);
      console.error(error);
    }
    tell();
  }
  const told = ["message", "busy", "progress", "wrong"];
  told.forEach((name) => model.on(`change:${name}`, tell));
  model.on("change:data", rebuild);
  rebuild();
  el.append(root);
  return () => {
    leave();
    told.forEach((name) => model.off(`change:${name}`, tell));
    model.off("change:data", rebuild);
  };
}

/** An exported page: the recorded state in place of a kernel. */
export function standalone(render, el, text) {
  const state = JSON.parse(text, (key, value) => {
    if (typeof value?.base64 !== "string") return value;
    const letters = atob(value.base64);
    const bytes = new Uint8Array(letters.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i); // the maps of an edit may be 60 MB
    return new DataView(bytes.buffer);
  });
  const listeners = new EventTarget();
  const model = {
    get: (name) => state[name],
    set(name, value) {
      if (state[name] === value) return;
      state[name] = value;
      listeners.dispatchEvent(new Event(`change:${name}`));
    },
    on: (event, act) => listeners.addEventListener(event, act),
    off: (event, act) => listeners.removeEventListener(event, act),
    save_changes() {},
    send() {},
  };
  render({ model, el });
}
