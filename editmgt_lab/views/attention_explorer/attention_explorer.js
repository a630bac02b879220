import { Panel, h, heat, heatColours, mount, percent, pictures, place, stepBar, unpack } from "../lab.js";

const TITLE = "Attention explorer";
const sum = (shares) => shares.reduce((total, share) => total + share, 0);
const HINT = "Point at a word, at a patch of a picture, or at a map. A click keeps it; with Shift, several.";

function build(model, data, body) {
  const [rows, columns] = data.grid;
  const positions = rows * columns;
  const { words, weights, blocks, heads } = data;
  const inPicture = [unpack(data.words_maps), unpack(data.words_scale)];
  const inSource = data.source_maps && [unpack(data.source_maps), unpack(data.source_scale)]; // not at γ = 0
  const inHeat = { image: [inPicture], source: [inSource], both: [inPicture, inSource] }[data.heat_from];
  const [patches, patchScales] = [unpack(data.patches), unpack(data.patches_scale)];
  const keys = patches?.shape.at(-1); // what a patch looks at: at γ = 0 the source is shown, but not among these
  const [solid, veil] = [heatColours(data.palette), heatColours(data.palette, data.palette.share)];
  const tokens = unpack(data.token_colours);
  const [urls, release] = pictures([...data.previews, data.source]);
  const source = urls.pop();
  let [overWord, overMap, overPatch, mapsShown, later] = [null, null, null, null, 0];

  const step = () => Math.min(model.get("step"), urls.length - 1);
  const every = [...Array(blocks.length * heads).keys()];
  const shownMaps = () => (overMap === null ? model.get("picked") : [overMap]);
  const shownWords = () => (overWord === null ? model.get("chosen") : [overWord]);

  /** Where these words look, the mean over maps and text rows, added over the pictures that are named, or those of the
   * heat map: one share for each position. No words: all of them. */
  function lookOfWords(chosen, picked, seen = inHeat) {
    const of = chosen.length ? chosen : [...words.keys()];
    const look = new Float64Array(positions);
    const total = of.reduce((sum, word) => sum + weights[word], 0) * picked.length;
    for (const [maps, scales] of seen) {
      for (const map of picked) {
        for (const word of of) {
          const index = (step() * every.length + map) * words.length + word;
          const share = weights[word] / total;
          const [least, level] = [scales[2 * index] * share, (scales[2 * index + 1] * share) / 255];
          for (let i = 0; i < positions; i++) look[i] += least + maps[index * positions + i] * level;
        }
      }
    }
    return look;
  }

  /** Where a patch looks: words, then positions of the picture, then of the source if it was read. */
  function lookOfPatch(cell, picked) {
    const look = new Float64Array(keys);
    for (const map of picked) {
      const index = (step() * every.length + map) * positions + cell;
      const [least, level] = [patchScales[2 * index], patchScales[2 * index + 1] / 255];
      for (let i = 0; i < keys; i++) look[i] += (least + patches[index * keys + i] * level) / picked.length;
    }
    return look;
  }

  // The page
  const chips = words.map((word, index) => {
    const chip = h("button", { class: data.special[index] ? "lab-chip lab-special" : "lab-chip" }, word);
    for (const event of ["pointerenter", "focus"]) chip.addEventListener(event, () => enter(index));
    for (const event of ["pointerleave", "blur"]) chip.addEventListener(event, () => enter(null));
    chip.addEventListener("click", (event) => choose("chosen", [index], event.shiftKey || event.ctrlKey || event.metaKey));
    chip.append(h("i", { class: "lab-share" }), h("small", { class: "lab-number" }));
    return chip;
  });
  const allWords = h("button", { class: "lab-chip", onclick: () => choose("chosen", [], false) }, "all words");
  const say = h("p", { class: "lab-say lab-two-lines", "aria-live": "polite" });

  const read = (cell) => place(cell, columns);
  const common = { rows, columns, ratio: data.ratio, read, hover: (cell) => enterPatch(cell), pick: pickPatch };
  const panels = {
    ...(source && { source: new Panel({ title: "source", ...common }) }),
    image: new Panel({ title: "picture", ...common }),
    ...(data.heat_from === "both" && { both: new Panel({ title: "source\u00a0+\u00a0picture", ...common }) }),
    tokens: new Panel({ title: "tokens", ...common }),
  };
  panels[data.heat_from].caption.textContent = "•"; // as at its blocks: here is what the heat map is made of
  const shown = Object.values(panels);

  const kind = (block) => (block < data.multi_modal ? "multi-modal" : "single-modal");
  const name = (map) => `block ${blocks[Math.floor(map / heads)]}, head ${map % heads}`;
  const atlas = new Panel({
    title: "blocks × heads", rows: blocks.length, columns: heads, gap: 3, read: name,
    ratio: (heads * data.ratio) / blocks.length,
    hover: (map) => ((overMap = map), draw()),
    pick: (map, event) => choose("picked", [map], event.shiftKey || event.ctrlKey || event.metaKey || event.key === " "),
  });
  const label = (text, title, list) =>
    h("button", { title, "aria-label": title, onclick: (event) => choose("picked", list, event.shiftKey) }, text);
  const rowLabels = blocks.map((block, row) => {
    const mark = data.heat_blocks.includes(block) ? `•${block}` : String(block);
    return label(mark, `block ${block}, ${kind(block)}`, every.filter((map) => Math.floor(map / heads) === row));
  });
  const columnLabels = [...Array(heads).keys()].map((head) =>
    label(String(head), `head ${head} of every block`, every.filter((map) => map % heads === head)),
  );
  const heatMaps = every.filter((map) => data.heat_blocks.includes(blocks[Math.floor(map / heads)]));
  const presets = h("div", { class: "lab-tabs" }, h("button", { onclick: () => choose("picked", every, false) }, "all"));
  if (heatMaps.length) presets.append(h("button", { onclick: () => choose("picked", heatMaps, false) }, "• heat map"));
  atlas.element.querySelector("figcaption").append(presets);
  atlas.element.classList.add("lab-atlas");
  atlas.element.style.flexBasis = `${Math.max(26 + 24 * heads, 180)}px`; // a map stays large enough to point at
  const side = h("div", { class: "lab-rows", "aria-label": "blocks" }, ...rowLabels);
  const above = h("div", { class: "lab-columns", "aria-label": "heads" }, ...columnLabels);
  const labelled = h("div", { class: "lab-maps" }, above, side);
  atlas.frame.replaceWith(h("div", { class: "lab-scroll" }, labelled));
  labelled.append(atlas.frame);
  const [bar, stop] = stepBar(model, urls.length, true);

  function enter(word) {
    overWord = word;
    draw();
  }
  function enterPatch(cell) {
    overPatch = cell;
    draw();
  }
  function pickPatch(cell) {
    model.set("cell", cell === model.get("cell") ? -1 : cell);
    model.save_changes();
  }
  /** Choose these alone, or with `add` put them in or out. One map is always picked; no word means all words. */
  function choose(trait, list, add) {
    const before = model.get(trait);
    let after = list;
    if (add) {
      const out = list.every((each) => before.includes(each));
      after = out ? before.filter((each) => !list.includes(each)) : [...new Set([...before, ...list])];
      if (trait === "picked" && !after.length) after = before;
    } else if (trait === "chosen" && String(before) === String(list)) after = [];
    model.set(trait, after);
    model.save_changes();
  }

  function draw() {
    const [chosen, picked] = [shownWords(), shownMaps()];
    const cell = overPatch ?? (overWord === null && overMap === null && model.get("cell") >= 0 ? model.get("cell") : null);
    const shares = cell === null ? drawWords(chosen, picked) : drawPatch(cell, picked);
    const most = Math.max(...(shares ?? [1]));
    chips.forEach((chip, index) => {
      const [bar, number] = chip.querySelectorAll("i, small");
      chip.setAttribute("aria-pressed", String(model.get("chosen").includes(index)));
      bar.style.width = shares ? `${(100 * shares[index]) / most}%` : "0";
      number.textContent = shares ? percent(shares[index]) : "";
    });
    allWords.setAttribute("aria-pressed", String(!model.get("chosen").length));
    shown.forEach((panel) => panel.mark(cell === null ? [] : [{ cell, kind: overPatch === null ? "picked" : "here" }]));
    cancelAnimationFrame(later);
    later = requestAnimationFrame(() => drawMaps(chosen)); // the answer first: 42 × 16 maps take a little longer
  }

  function show(ofSource, ofPicture) {
    const coloured = (values) => values && heat(values, veil);
    panels.source?.show(source, coloured(ofSource));
    panels.image.show(urls[step()], coloured(ofPicture));
    panels.both?.show(source, coloured(ofSource?.map((share, cell) => share + ofPicture[cell])));
    const [down, across] = data.token_grid;
    const size = 3 * down * across;
    panels.tokens.show(null, tokens.subarray(step() * size, (step() + 1) * size), across, down);
  }

  function drawWords(chosen, picked) {
    const look = lookOfWords(chosen, picked, [inPicture]);
    const lookInSource = inSource && lookOfWords(chosen, picked, [inSource]);
    show(lookInSource, look);
    const who = chosen.length ? chosen.map((word) => `“${words[word]}”`).join(", ") : "all words";
    const [one, their] = chosen.length === 1 ? ["looks", "its"] : ["look", "their"];
    const share = `${percent(sum(look))} of ${their} attention is on the picture`;
    const rest = inSource ? `, ${percent(sum(lookInSource))} on the source` : "";
    const most = `at most ${percent(Math.max(...look, ...(lookInSource ?? [])))} on one patch`;
    say.textContent = `Where ${who} ${one} (${from(picked)}): ${share}${rest}, ${most}.`;
    return null;
  }

  function drawPatch(cell, picked) {
    const where = `the patch at ${place(cell, columns)}`;
    if (!patches) {
      show(null, null);
      const missing = "Where patches look was not recorded.";
      say.textContent = `How much each word looks at ${where} of the picture (${from(picked)}). ${missing}`;
      return words.map((_, word) => lookOfWords([word], picked, [inPicture])[cell]);
    }
    const look = lookOfPatch(cell, picked);
    const parts = [look.subarray(0, words.length), look.subarray(words.length, words.length + positions)];
    if (keys > words.length + positions) parts.push(look.subarray(words.length + positions));
    const shares = parts.map(sum);
    show(parts[2], parts[1]);
    const rest = Math.max(1 - sum(shares), 0);
    const list = [`words ${percent(shares[0])}`, `picture ${percent(shares[1])}`];
    if (parts[2]) list.push(`source ${percent(shares[2])}`);
    say.textContent = `Where ${where} looks (${from(picked)}): ${list.join(", ")}, padding ${percent(rest)}.`;
    return [...parts[0]];
  }

  const from = (picked) => (picked.length === 1 ? name(picked[0]) : `mean of ${picked.length} of ${every.length} maps`);

  /** Every block's and head's map of these words, in what the heat map is taken in, from its least to its greatest. */
  function drawMaps(chosen) {
    const here = overMap === null ? [] : [{ cell: overMap, kind: "here" }];
    const picked = model.get("picked");
    atlas.mark([...(picked.length < every.length ? picked.map((cell) => ({ cell, kind: "among" })) : []), ...here]);
    const asked = `${step()}: ${chosen}`;
    if (asked === mapsShown) return;
    mapsShown = asked;
    const wide = heads * columns;
    const pixels = new Uint8ClampedArray(4 * wide * rows * blocks.length);
    for (const map of every) {
      const small = heat(lookOfWords(chosen, [map]), solid);
      const corner = Math.floor(map / heads) * rows * wide + (map % heads) * columns;
      for (let row = 0; row < rows; row++) {
        pixels.set(small.subarray(4 * row * columns, 4 * (row + 1) * columns), 4 * (corner + row * wide));
      }
    }
    atlas.show(null, pixels, wide, rows * blocks.length);
  }

  const main = h("div", { class: "lab-main" }, h("div", { class: "lab-row" }, ...shown.map((panel) => panel.element)));
  main.append(bar, h("p", { class: "lab-hint" }, HINT), h("p", { class: "lab-hint" }, data.about));
  const line = h("div", { class: "lab-chips", role: "group", "aria-label": "words" }, allWords, ...chips);
  body.append(line, say, h("div", { class: "lab-row" }, main, atlas.element));
  const heard = ["step", "chosen", "picked", "cell"];
  heard.forEach((trait) => model.on(`change:${trait}`, draw));
  draw();
  return () => {
    cancelAnimationFrame(later);
    stop();
    release();
    heard.forEach((trait) => model.off(`change:${trait}`, draw));
  };
}

function render({ model, el }) {
  return mount(model, el, TITLE, build);
}

export default { render };
