// A button that sends a picture to the kernel. One that is too large for a message is made smaller here.

const MOST = 8; // MiB; at 10 a Jupyter server drops the connection, and the message with it
const SIDE = 2048; // px, more than any model here takes
const QUALITY = 0.95;

async function fitting(file) {
  if (file.size <= MOST * 2 ** 20) return file;
  const image = await createImageBitmap(file); // upright
  const scale = Math.min(1, SIDE / Math.max(image.width, image.height));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height].map((side) => Math.max(1, Math.round(side * scale)));
  const pen = canvas.getContext("2d");
  pen.fillStyle = "white"; // under transparency, as in images.py
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", QUALITY));
}

function render({ model, el }) {
  const input = Object.assign(document.createElement("input"), { type: "file", accept: "image/*", hidden: true });
  const button = document.createElement("button");
  const note = document.createElement("span");
  button.className = "lm-Widget jupyter-widgets jupyter-button widget-button";
  button.style.width = "150px";
  button.textContent = "Upload a picture";
  note.setAttribute("role", "status");
  button.onclick = () => input.click();
  input.onchange = async () => {
    const file = input.files[0];
    input.value = ""; // so that the same file can be uploaded again
    if (!file) return;
    note.textContent = "";
    try {
      model.send({ kind: "picture" }, undefined, [await (await fitting(file)).arrayBuffer()]);
    } catch {
      const size = (file.size / 2 ** 20).toFixed(0);
      note.textContent =
        `${file.name} has ${size} MiB, and this browser cannot read it to make it smaller. ` +
        `Save it as JPEG or PNG with at most ${MOST} MiB.`;
    }
  };
  el.replaceChildren(button, input, note);
}

export default { render };
