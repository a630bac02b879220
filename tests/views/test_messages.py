"""What a page says is heard, whatever became of the pages before it: the kernel alone, and no browser."""

from ast import literal_eval
from queue import Empty

import pytest
from jupyter_client import KernelManager

from tests.support import PATIENCE, until

MADE = """
import editmgt_lab as lab
from editmgt_lab import views

editor = lab.load()
sample = lab.world.sample_edit(18, split="test", category="remove")
widget = views.decode_player(editor, sample.source, sample.instruction, **{settings})
"""


class Kernel:
    """A client that speaks as pages do: each on a subshell of its own, which goes when the page is closed."""

    def __init__(self, client):
        self.client = client

    def run(self, code):
        self.client.execute_interactive(code, timeout=PATIENCE, output_hook=lambda message: None)

    def evaluated(self, expression):
        asked = self.client.execute("", silent=True, user_expressions={"it": expression})
        while True:
            reply = self.client.get_shell_msg(timeout=PATIENCE)
            if reply["parent_header"]["msg_id"] == asked:
                return literal_eval(reply["content"]["user_expressions"]["it"]["data"]["text/plain"])

    def opened(self):
        return self._control("create_subshell_request", {})["subshell_id"]

    def closed(self, page):
        """As JupyterLab closes one: its last comm's end is the last that this subshell hears."""
        self.say(page, "comm_close", "of-the-page", {})

        def heard():
            content, kind = self.published()
            return kind == "comm_close" and content.get("execution_state") == "idle"

        until(heard, "the kernel to hear that the page is closed")
        self._control("delete_subshell_request", {"subshell_id": page})

    def say(self, page, kind, comm, data):
        message = self.client.session.msg(kind, {"comm_id": comm, "data": data})
        message["header"]["subshell_id"] = page
        self.client.shell_channel.send(message)

    def published(self):
        """The kernel's next message to all pages, or nothing for now: its content and the kind that it answers to."""
        try:
            message = self.client.get_iopub_msg(timeout=0.1)
        except Empty:
            return {}, None
        return message["content"], message["parent_header"].get("msg_type")

    def _control(self, kind, content):
        asked = self.client.session.msg(kind, content)
        self.client.control_channel.send(asked)
        while True:
            reply = self.client.control_channel.get_msg(timeout=PATIENCE)
            if reply["parent_header"]["msg_id"] == asked["header"]["msg_id"]:
                assert reply["content"]["status"] == "ok", reply["content"]
                return reply["content"]


@pytest.fixture
def kernel():
    manager = KernelManager()
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=PATIENCE)
    features = client.kernel_info(reply=True, timeout=PATIENCE)["content"].get("supported_features", [])
    try:
        if "kernel subshells" not in features:
            pytest.skip("this ipykernel has no subshells: pages share the main shell")
        yield Kernel(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_cancel_is_heard_after_another_page_was_closed(kernel):
    kernel.run(MADE.replace("{settings}", "{'steps': 1000}"))
    comm = kernel.evaluated("widget.comm.comm_id")
    kernel.closed(kernel.opened())
    until(lambda: kernel.published()[0].get("comm_id") == comm, "the work to say something after it")
    kernel.say(kernel.opened(), "comm_msg", comm, {"method": "custom", "content": {"kind": "cancel"}})
    until(lambda: kernel.evaluated("widget.message") == "cancelled", "Cancel to be heard")


def test_a_slider_is_heard_after_its_page_was_closed(kernel):
    kernel.run(MADE.replace("{settings}", "{'steps': 4}") + "widget.pending.result()")
    comm = kernel.evaluated("widget.comm.comm_id")
    for step in (1, 2):
        page = kernel.opened()
        kernel.say(page, "comm_msg", comm, {"method": "update", "state": {"step": step}, "buffer_paths": []})
        until(lambda step=step: kernel.evaluated("widget.step") == step, "the slider to be heard")
        kernel.closed(page)
