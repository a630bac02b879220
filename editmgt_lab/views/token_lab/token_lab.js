import { Panel, h, heat, heatColours, mount, patch, pictures, place, unpack } from "../lab.js";

const TITLE = "Token lab";
const WIDE = 32; // codes in a line of the codebook
const HINT = "Point at a cell to see its code. Click it, then click another code in the codebook.";
const RECORDED = "This page has no kernel: the recorded changes can be undone and redone, new ones need the notebook.";

function build(model, data, body) {
  const [rows, columns] = data.grid;
  const [order, patches] = [unpack(data.order), unpack(data.patches)];
  const [colours, palette] = [unpack(data.colours), heatColours(data.palette, data.palette.share)];
  const side = patches.shape[1];
  const [[picture], release] = pictures([data.picture]);
  let [overCell, overCode, tokens, decoded, releaseDecoded] = [null, null, [], [], () => {}];

  const state = () => model.get("states")[Math.min(model.get("at"), model.get("states").length - 1)];
  const usedIn = (code) => [...tokens.keys()].filter((cell) => tokens[cell] === code);
  const times = (count) => (count === 1 ? "once" : `${count} times`);
  const read = (cell) => `${place(cell, columns)}, code ${tokens[cell]}`;
  const common = { rows, columns, ratio: data.ratio, read, hover: (cell) => ((overCell = cell), tell()), pick };
  const panels = ["picture", "tokens", "decoded", "difference"].map((title) => new Panel({ title, ...common }));
  const book = new Panel({
    title: "codebook, in order of use", rows: Math.ceil(order.length / WIDE), columns: WIDE, gap: 2,
    ratio: WIDE / Math.ceil(order.length / WIDE),
    read: (index) => (index < order.length ? `code ${order[index]}, used ${times(usedIn(order[index]).length)}` : "empty"),
    hover: (index) => ((overCode = index === null || index >= order.length ? null : order[index]), tell()),
    pick: put,
  });
  const detail = h("div", { class: "lab-detail", "aria-live": "polite" });
  const said = h("span", { class: "lab-note" });
  const button = (text, to) => h("button", { onclick: () => (model.set("at", to()), model.save_changes()) }, text);
  const undo = button("Undo", () => model.get("at") - 1);
  const redo = button("Redo", () => model.get("at") + 1);
  const reset = button("Reset", () => 0);

  function pick(cell) {
    model.set("cell", cell === model.get("cell") ? -1 : cell);
    model.save_changes();
  }
  function put(index) {
    const cell = model.get("cell");
    if (model.get("live") && cell >= 0 && index < order.length) model.send({ kind: "swap", cell, code: order[index] });
  }

  function drawBook() {
    const lines = book.rows;
    const pixels = new Uint8ClampedArray(4 * WIDE * side * lines * side);
    order.forEach((code, index) => {
      const corner = Math.floor(index / WIDE) * side * WIDE * side + (index % WIDE) * side;
      for (let i = 0; i < side * side; i++) {
        const at = (code * side * side + i) * 3;
        const to = 4 * (corner + Math.floor(i / side) * WIDE * side + (i % side));
        pixels.set([patches[at], patches[at + 1], patches[at + 2], 255], to);
      }
    });
    book.show(null, pixels, WIDE * side, lines * side);
  }

  function draw() {
    releaseDecoded();
    [decoded, releaseDecoded] = pictures([state().decoded]);
    tokens = unpack(state().tokens);
    const difference = unpack(state().difference);
    const [down, across] = difference.shape;
    panels[0].show(picture);
    panels[1].show(null, Uint8Array.from([...tokens].flatMap((code) => [...colours.subarray(3 * code, 3 * code + 3)])));
    panels[2].show(decoded[0]);
    panels[3].show(decoded[0], heat(difference, palette), across, down);
    const [at, last] = [model.get("at"), model.get("states").length - 1];
    undo.disabled = reset.disabled = at === 0;
    redo.disabled = at >= last;
    said.textContent = `${at} of ${last} changes: ${state().said}`;
    tell();
  }

  function tell() {
    const picked = model.get("cell");
    const cell = overCell ?? picked;
    const code = overCode ?? (cell < 0 ? null : tokens[cell]);
    const same = usedIn(code).filter((other) => overCode !== null || other !== cell);
    const marks = same.map((other) => ({ cell: other, kind: "same" }));
    if (picked >= 0) marks.push({ cell: picked, kind: "picked" });
    if (overCell !== null) marks.push({ cell: overCell, kind: "here" });
    panels.forEach((panel) => panel.mark(marks));
    book.mark(code === null ? [] : [{ cell: order.indexOf(code), kind: overCode === null ? "picked" : "here" }]);
    detail.replaceChildren(...(code === null ? [h("p", { class: "lab-hint" }, HINT)] : about(cell, code, same.length)));
  }

  function about(cell, code, others) {
    const figure = (canvas, text) => h("figure", {}, canvas, text);
    const pair = h("div", { class: "lab-pair" }, figure(patch(patches, code, `code ${code}`), "code alone"));
    if (overCode === null) pair.append(figure(cut(cell), "in the picture"));
    const title = overCode === null ? `code ${code} at ${place(cell, columns)}` : `code ${code}`;
    const cells = `${others}${overCode === null ? " other" : ""} ${others === 1 ? "cell" : "cells"}`;
    return [h("h3", {}, title), h("p", {}, `in ${cells} of this picture`), pair];
  }

  /** The cell's own pixels of the picture. */
  function cut(cell) {
    const [image, canvas] = [panels[0].image, h("canvas", { width: side, height: side })];
    const [wide, high] = [image.naturalWidth / columns, image.naturalHeight / rows];
    const corner = [(cell % columns) * wide, Math.floor(cell / columns) * high];
    if (image.complete) canvas.getContext("2d").drawImage(image, ...corner, wide, high, 0, 0, side, side);
    return canvas;
  }

  book.element.classList.add("lab-codebook");
  const scroll = h("div", { class: "lab-scroll" });
  book.frame.replaceWith(scroll);
  scroll.append(book.frame);
  const bar = h("div", { class: "lab-buttons" }, undo, redo, reset, said);
  const aside = h("aside", { class: "lab-side" }, h("b", {}, "the code"), detail);
  body.append(h("div", { class: "lab-row" }, ...panels.map((panel) => panel.element)), bar);
  body.append(h("div", { class: "lab-row" }, aside, book.element));
  if (!model.get("live")) body.append(h("p", { class: "lab-hint" }, RECORDED));
  const heard = ["at", "states"];
  heard.forEach((name) => model.on(`change:${name}`, draw));
  model.on("change:cell", tell);
  drawBook();
  draw();
  return () => {
    release();
    releaseDecoded();
    heard.forEach((name) => model.off(`change:${name}`, draw));
    model.off("change:cell", tell);
  };
}

function render({ model, el }) {
  return mount(model, el, TITLE, build);
}

export default { render };
