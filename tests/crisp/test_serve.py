"""A real endpoint: `transformers serve` with a tiny vision-language model of random weights, which talks nonsense."""

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image

from editmgt_lab.crisp.curate.rules import Measure
from editmgt_lab.crisp.curate.sources import Source
from editmgt_lab.crisp.engine.shards import Store
from editmgt_lab.crisp.engine.stages import Stage, finished
from editmgt_lab.crisp.instruct.operators import Describe
from editmgt_lab.crisp.models.client import Client
from editmgt_lab.crisp.models.http import Patience
from editmgt_lab.crisp.models.roles import EndpointDescriber
from tests.support import answers, free_port, until

for needed in ("openai", "fastapi", "uvicorn"):
    pytest.importorskip(needed, reason="transformers[serving] is not installed")

TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    words = ["<unk>", "<s>", "</s>", "<image>", *"{}[]:,", *'"abcdefghijklmnop']
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    small = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = CLIPVisionConfig(image_size=32, patch_size=16, projection_dim=32, **small)
    language = LlamaConfig(vocab_size=len(words), max_position_embeddings=4096, num_key_value_heads=2, **small)
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=vision, text_config=language, image_token_index=words.index("<image>"),
        vision_feature_select_strategy="default", vision_feature_layer=-1, image_seq_length=4,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("llava")
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    LlavaProcessor(
        images, tokenizer, patch_size=16, vision_feature_select_strategy="default", chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def served(folder, tmp_path_factory):
    port = free_port()
    address = f"http://127.0.0.1:{port}/health"
    said = tmp_path_factory.mktemp("server") / "log"
    with open(said, "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", str(folder),
             "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        until(lambda: process.poll() is not None or answers(process, address, said), "transformers serve")
        if "unexpected extra argument" in said.read_text():
            pytest.skip("this transformers' server takes no folder")
        assert answers(process, address, said)
        yield f"http://127.0.0.1:{port}/v1", said
    finally:
        process.kill()
        process.wait()


def test_a_real_model_that_talks_nonsense_costs_rows_and_nothing_else(served, folder, tmp_path):
    url, said = served
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(3):
        Image.new("RGB", (32, 32), (80 * number, 0, 0)).save(pictures / f"{number}.png")
    client = Client(url, str(folder), longest=12, cache=tmp_path / "answers", at_once=2, patience=Patience(2, 300, 0.1))
    store = Store(tmp_path / "shards")
    measured = Stage("measure", (Measure(),), ("picture",)).run(Source(str(pictures)).shards(), store, progress=False)
    stage = Stage("describe", (Describe(EndpointDescriber(client)),))
    (shard,) = stage.run(finished(measured, store), store, progress=False)
    problems = [row["problem"] for row in store.rows(shard, dropped=True)]
    assert (shard.kept, len(problems)) == (0, 3), said.read_text()[-3000:]
    assert all("answered twice in another form" in each for each in problems), (problems, said.read_text()[-3000:])
    cost = client.cost()
    assert cost.calls == 6 and cost.prompt_tokens > 6 * 20 and 0 < cost.completion_tokens <= 6 * 12
    with open(tmp_path / "answers" / "spent.jsonl") as file:
        assert all(json.loads(line)["prompt_tokens"] > 0 for line in file)
