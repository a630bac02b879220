import { KEYS, h, mount, pictures } from "../lab.js";

const TITLE = "Injection dial";
const STEP = 0.05;
const FORMS = [[false, "paper: source ↔ image"], [true, "released: source ↔ all"]];
const HINT = "Turn the dial and let go: the edit is made at that γ. A click on a picture turns the dial to it.";
const RECORDED = "This page has no kernel: the recorded strengths can be compared, new ones need the notebook.";

function build(model, data, body) {
  const [[source], release] = pictures([data.source]);
  const dial = h("input", {
    ...KEYS, type: "range", min: 0, max: data.most, step: STEP, "aria-label": "strength γ",
    oninput: () => turn(Number(dial.value), false), onchange: () => turn(Number(dial.value), true),
  });
  const value = h("output", { class: "lab-number" });
  const tabs = FORMS.map(([form, name]) =>
    h("button", { class: "lab-tab", onclick: () => (model.set("bias_text", form), model.save_changes(), ask()) }, name),
  );
  const [before, now] = ["source", "edit"].map(picturePanel);
  const strip = h("div", { class: "lab-strip", role: "group", "aria-label": "every strength" });
  let [urls, releaseUrls] = [[], () => {}];

  function picturePanel(title) {
    const image = h("img", { alt: title, draggable: "false" });
    const note = h("span", { class: "lab-note" });
    const frame = h("div", { class: "lab-frame", style: `aspect-ratio: ${data.ratio}` }, image);
    const caption = h("figcaption", {}, h("b", {}, title), note);
    return { image, note, element: h("figure", { class: "lab-panel" }, caption, frame) };
  }

  const made = () => model.get("results").filter((result) => result.bias_text === model.get("bias_text"));
  const nearest = () =>
    made().reduce((best, each) => {
      const away = (result) => Math.abs(result.strength - model.get("strength"));
      return !best || away(each) < away(best) ? each : best;
    }, null);

  function turn(to, rest) {
    model.set("strength", to);
    model.save_changes();
    if (rest) ask();
  }
  function ask() {
    if (!model.get("live")) return;
    model.send({ kind: "turn", strength: model.get("strength"), bias_text: model.get("bias_text") });
  }

  function drawStrip() {
    releaseUrls();
    const results = made();
    [urls, releaseUrls] = pictures(results.map((result) => result.picture));
    strip.replaceChildren(
      ...results.map((result, index) => {
        const name = `γ = ${result.strength}`;
        const frame = h("button", { class: "lab-thumb", "aria-label": name, title: name, onclick: () => turn(result.strength, false) });
        frame.append(h("img", { src: urls[index], alt: "" }), `${result.strength}`);
        return frame;
      }),
    );
    draw();
  }

  function draw() {
    const [strength, shown] = [model.get("strength"), nearest()];
    dial.value = strength;
    value.textContent = `γ = ${strength.toFixed(2)}, ℰ = log γ = ${strength > 0 ? Math.log(strength).toFixed(2).replace("-", "−") : "−∞"}`;
    tabs.forEach((tab, index) => {
      tab.setAttribute("aria-pressed", FORMS[index][0] === model.get("bias_text"));
      tab.disabled = !model.get("live") && !model.get("results").some((result) => result.bias_text === FORMS[index][0]);
    });
    now.note.textContent = shown ? `γ = ${shown.strength}, L1 to the source ${shown.l1.toFixed(3)}` : "not made";
    now.image.hidden = !shown;
    if (shown) now.image.src = urls[made().indexOf(shown)];
    [...strip.children].forEach((frame, index) =>
      frame.setAttribute("aria-current", made()[index] === shown ? "step" : "false"),
    );
  }

  before.image.src = source;
  const bar = h("div", { class: "lab-steps" }, dial, value);
  const forms = h("div", { class: "lab-tabs", role: "group", "aria-label": "form of the bias" }, ...tabs);
  const hint = h("p", { class: "lab-hint" }, model.get("live") ? HINT : RECORDED);
  body.append(h("div", { class: "lab-row" }, before.element, now.element), bar, forms, strip, hint);
  model.on("change:results", drawStrip);
  model.on("change:bias_text", drawStrip);
  model.on("change:strength", draw);
  drawStrip();
  return () => {
    release();
    releaseUrls();
    model.off("change:results", drawStrip);
    model.off("change:bias_text", drawStrip);
    model.off("change:strength", draw);
  };
}

function render({ model, el }) {
  return mount(model, el, TITLE, build);
}

export default { render };
