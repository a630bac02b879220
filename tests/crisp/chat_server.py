"""A chat server to test the client with, as a process of its own: `python -m tests.crisp.chat_server FOLDER`.

It writes its port to FOLDER/port and every question to FOLDER/asked.jsonl. How it behaves, call by call, stands in
FOLDER/behaviour: a JSON list of what to do, the last of which goes on for ever. "ok" answers what FOLDER/answer holds,
"slow" nothing.
"""

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
LOCK, CALLS = threading.Lock(), [0]
NEVER = 1e6  # s: longer than anybody's patience


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with LOCK:
            behaviour = json.loads((FOLDER / "behaviour").read_text())
            done = behaviour[min(CALLS[0], len(behaviour) - 1)]
            CALLS[0] += 1
            line = {"path": self.path, "key": self.headers.get("Authorization"), "content": content, "at": time.time()}
            with open(FOLDER / "asked.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")
        self.behave(done)

    def behave(self, done):
        if done == "die":
            os._exit(1)
        if done == "slow":
            time.sleep(NEVER)
        if done == "hang up":
            self.connection.close()
            return
        if done == "cut short":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
            return
        if isinstance(done, int):
            self.send(done, b"the key is " + (self.headers.get("Authorization") or "").encode(), retry=done == 429)
            return
        if done == "elsewhere":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/stolen")
            self.end_headers()
            return
        said = (FOLDER / "answer").read_text() if done in ("ok", "fenced") else done
        said = f"Here it is:\n```json\n{said}\n```" if done == "fenced" else said
        told = {"choices": [{"message": {"role": "assistant", "content": said}}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 7}}  # fmt: skip
        self.send(200, b"<html>" if done == "html" else json.dumps({} if done == "empty" else told).encode())

    def send(self, status, body, retry=False):
        self.send_response(status)
        if retry:
            self.send_header("Retry-After", "0.3")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 0), Handler)
    (FOLDER / "unfinished").write_text(str(server.server_port))
    (FOLDER / "unfinished").rename(FOLDER / "port")
    server.serve_forever()
