"""An OpenAI-compatible server whose model knows the drawn world: it reads the pictures that it is sent, and answers.

Pictures of three backgrounds get their instructions in other scripts, as careless models write them.
"""

import base64
import io
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from PIL import Image

from editmgt_lab.crisp.drawn.models import DrawnDescriber, DrawnWriter
from editmgt_lab.crisp.instruct.captions import Caption

OTHER_SCRIPTS = {"snow": "把球变成蓝色", "sea": "اجعل الكرة زرقاء", "night": "🎈➡️🔵"}


def answer(name, text, pictures):
    reader = DrawnDescriber()
    if name == "caption":
        return json.loads(reader.describe(pictures[0]).to_json())
    if name == "absent":
        return {"absent": reader.absent(pictures[0], text)}
    if name == "scores":
        return {"success": 8, "preservation": 8, "quality": 8}
    caption = Caption.of(json.JSONDecoder().raw_decode(text[text.index("{") :])[0])
    ((request,),) = DrawnWriter(("color",), rounds=1, careless=0.0).write(caption, 1, 0)
    told = json.loads(request.to_json())
    return told | {"instruction": OTHER_SCRIPTS.get(caption.background, request.instruction)}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = asked["messages"][-1]["content"]
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        pictures = [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]
        name = asked["response_format"]["json_schema"]["name"]
        said = json.dumps(answer(name, parts[-1]["text"], pictures), ensure_ascii=False)
        body = json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def served():
    """Its address, while it runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
