"""Every measure against an independent computation: numpy by hand, torchmetrics, and transformers called by hand."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import conv2d, max_pool2d, relu
from transformers import AutoTokenizer, CLIPModel, Dinov2Config, Dinov2Model, ViTConfig, ViTModel

import editmgt_lab as lab
from editmgt_lab.errors import CheckpointError, JudgeError, SettingError, ShapeError
from editmgt_lab.metrics import lpips, pixels
from editmgt_lab.metrics.backbones import Preprocessing, cosine, load_clip, load_dino, load_dinov2
from editmgt_lab.metrics.measured import ALL, MeasuredCard, Shown
from editmgt_lab.metrics.measures import Comparison, Tools, build_measures, evaluate_comparison
from editmgt_lab.metrics.viescore import VIEScore, ask, read_scores
from tests.support.backbones import LONGEST, save_clip, save_dino, save_dinov2


@pytest.fixture(scope="module")
def sample():
    return lab.world.sample_edit(3, split="test", category="replace", size=64)


@pytest.fixture(scope="module")
def pair(sample):
    def to_tensor(image):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255

    return to_tensor(sample.target), to_tensor(sample.source)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    return {
        "clip": save_clip(folder / "clip"),
        "dino": save_dino(folder / "dino"),
        "dinov2": save_dinov2(folder / "dinov2"),
    }


@pytest.fixture(scope="module")
def where(sample):
    return torch.from_numpy(np.array(sample.mask) > 127)


def by_hand(output, reference, where):
    """L1, L2, PSNR and SSIM in numpy, one window at a time."""
    a, b = output.double().numpy(), reference.double().numpy()
    inside = where.numpy()
    errors = (a - b)[:, inside]
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for row, column in np.argwhere(inside):
        if not (5 <= row < a.shape[1] - 5 and 5 <= column < a.shape[2] - 5):
            continue
        for x, y in zip(a, b, strict=True):
            x, y = (each[row - 5 : row + 6, column - 5 : column + 6] for each in (x, y))
            mean_x, mean_y = (window * x).sum(), (window * y).sum()
            var_x, var_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
            both = (window * (x - mean_x) * (y - mean_y)).sum()
            c1, c2 = 0.0001, 0.0009
            luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
            values.append(luminance * (2 * both + c2) / (var_x + var_y + c2))
    mean_square = (errors**2).mean()
    return abs(errors).mean(), mean_square, 10 * math.log10(1 / mean_square), np.mean(values)


@pytest.mark.parametrize("part", ["whole", "inside", "outside"])
def test_pixels_against_numpy(pair, where, part):
    output, reference = pair[0], (pair[1] + 0.1).clamp(0, 1)
    chosen = {"whole": torch.ones_like(where), "inside": where, "outside": ~where}[part]
    asked = None if part == "whole" else chosen
    found = [function(output, reference, asked) for function in (pixels.l1, pixels.l2, pixels.psnr, pixels.ssim)]
    assert found == pytest.approx(by_hand(output, reference, chosen), abs=1e-5)


def test_pixels_against_torchmetrics(pair):
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    output, reference = pair[0][None], pair[1][None]
    _, whole = structural_similarity_index_measure(output, reference, data_range=1.0, return_full_image=True)
    expected = whole[..., 5:-5, 5:-5].mean().item()  # without the border, which torchmetrics makes up by reflection
    assert pixels.ssim(*pair) == pytest.approx(expected, abs=1e-5)
    expected = peak_signal_noise_ratio(output, reference, data_range=1.0).item()
    assert pixels.psnr(*pair) == pytest.approx(expected, abs=1e-5)


def test_pixels_of_the_same_of_too_little_and_of_wrong_shapes(pair, where):
    output = pair[0]
    assert (pixels.l1(output, output), pixels.l2(output, output)) == (0, 0)
    assert pixels.ssim(output, output) == pytest.approx(1) and pixels.psnr(output, output) == math.inf
    nothing = torch.zeros_like(where)
    for function in (pixels.l1, pixels.l2, pixels.psnr, pixels.ssim):
        assert math.isnan(function(output, pair[1], nothing))
        with pytest.raises(ShapeError):
            function(output, pair[1][:, 1:], where)
    assert math.isnan(pixels.ssim(output[:, :8], output[:, :8]))


TAPPED = {  # the networks again, as their papers list them: convolutions between poolings, and which are compared
    "alex": [([(11, 4, 2)], 0), ([(5, 1, 2)], 3), ([(3, 1, 1)] * 3, 3)],
    "vgg": [([(3, 1, 1)] * 2, 0), ([(3, 1, 1)] * 2, 2), *[([(3, 1, 1)] * 3, 2)] * 3],
}


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_lpips_against_a_forward_pass_by_hand(pair, network, tmp_path, monkeypatch):
    thin = [(max(1, layer[0] // 16), *layer[1:]) if len(layer) == 4 else layer for layer in lpips.NETWORKS[network]]
    monkeypatch.setitem(lpips.NETWORKS, network, thin)
    torch.manual_seed(0)
    made = lpips.LPIPS(network)
    for lin in made.lins:
        lin.weight.data.uniform_(0, 1)
    weights = made.state_dict()
    torch.save({k: v for k, v in weights.items() if k.startswith("features")}, tmp_path / "backbone.pth")
    lins = {f"lin{k}.model.1.weight": weights[f"lins.{k}.weight"] for k in range(5)}
    torch.save(lins, tmp_path / "lins.pth")
    files = [str(tmp_path / name) for name in ("backbone.pth", "lins.pth", "folder")]
    assert lpips.main(files) == 0
    loaded = lpips.LPIPS.from_pretrained(tmp_path / "folder")
    convolutions = [
        name.removesuffix(".weight") for name in weights if name.startswith("f") and name.endswith("weight")
    ]
    features = []
    for picture in pair:
        shift, scale = torch.tensor([-0.03, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.45])
        x = ((2 * picture - 1 - shift[:, None, None]) / scale[:, None, None])[None]
        names, found = iter(convolutions), []
        for group, pool in TAPPED[network]:
            x = max_pool2d(x, pool, 2) if pool else x
            for _, stride, padding in group:
                name = next(names)
                x = relu(conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, padding))
                found.append(x)
        lasts = [0, 1, 2, 3, 4] if network == "alex" else [1, 3, 6, 9, 12]
        features.append([found[i] for i in lasts])
    total, maps = 0.0, []
    for k, (a, b) in enumerate(zip(*features, strict=True)):
        a, b = (x / x.pow(2).sum(1, keepdim=True).sqrt().add(1e-10) for x in (a, b))
        weighted = ((a - b) ** 2 * weights[f"lins.{k}.weight"].view(1, -1, 1, 1)).sum(1)
        total += weighted.mean().item()
        maps.append(weighted)
    output, reference = (picture[None] for picture in pair)
    assert loaded(output, reference).item() == pytest.approx(total, abs=1e-4) and total > 0.01
    assert loaded(output, output).item() == 0
    assert loaded.spatial(output, reference).shape == (1, 64, 64)
    with pytest.raises(CheckpointError, match="do not make"):
        lpips.convert(tmp_path / "lins.pth", tmp_path / "lins.pth", tmp_path / "no")
    (tmp_path / "text.pth").write_text("no weights", encoding="utf-8")
    assert lpips.main([files[0], str(tmp_path / "text.pth"), files[2]]) == 2
    for number, other in enumerate((torch.zeros(1), {"features.0.weight": 3}, {0: torch.zeros(1)})):
        torch.save(other, tmp_path / f"{number}.pth")
        with pytest.raises(CheckpointError, match="holds no named tensors"):
            lpips.convert(tmp_path / f"{number}.pth", tmp_path / "lins.pth", tmp_path / "no")


def test_lpips_against_torchmetrics(pair, monkeypatch):
    from torchmetrics.functional.image import lpips as theirs

    torch.manual_seed(0)
    ours = lpips.LPIPS("alex")
    for lin in ours.lins:
        lin.weight.data.uniform_(0, 1)

    def features_without_torchvision(net, pretrained):
        return ours.features

    monkeypatch.setattr(theirs, "_get_tv_model_features", features_without_torchvision)
    model = theirs._LPIPS(pretrained=False, net="alex", pnet_rand=True, use_dropout=False)
    for mine, other in zip(ours.lins, model.lins, strict=True):
        other.model[-1].weight.data.copy_(mine.weight.data)
    output, reference = (picture[None] for picture in pair)
    expected = model(output, reference, normalize=True).item()
    assert ours(output, reference).item() == pytest.approx(expected, abs=1e-4)


def test_clip_against_transformers(networks, sample):
    clip = load_clip(networks["clip"])
    model, tokenizer = (
        CLIPModel.from_pretrained(networks["clip"]).eval(),
        AutoTokenizer.from_pretrained(networks["clip"]),
    )
    wide = sample.source.resize((97, 64))
    mean, deviation = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    resized = wide.resize((48, 32), Image.Resampling.BICUBIC).crop((8, 0, 40, 32))
    tensor = torch.from_numpy(((np.array(resized) / 255 - mean) / deviation).transpose(2, 0, 1)[None]).float()
    with torch.no_grad():
        both = model(pixel_values=tensor, **tokenizer(["a cat"], return_tensors="pt"))
    vision, text = both.image_embeds[0], both.text_embeds[0]  # of length 1
    for found, expected in ((clip.embed([wide])[0], vision), (clip.embed_texts(["a cat"])[0], text)):
        torch.testing.assert_close(found / found.norm(), expected, atol=1e-4, rtol=1e-4)
    expected = (vision @ text).item()
    assert cosine(clip.embed([wide])[0], clip.embed_texts(["a cat"])[0]) == pytest.approx(expected, abs=1e-4)
    assert clip.longest == LONGEST
    assert clip.too_long("a blue cat on a red mat") and not clip.too_long("a cat")
    assert str(clip.preprocessing) == "short side 32 px bicubic, centre 32 px" and clip.name == "clip"


@pytest.mark.parametrize("short, cut", [(33, 0), (35, 2), (37, 2), (39, 4)])
def test_the_centre_is_rounded_as_torchvision_rounds_it(short, cut):
    """int(round((side - crop) / 2.0)), half to even."""
    columns = np.tile(np.arange(short, dtype=np.uint8)[:, None], (short, 1, 3))  # each of its own brightness
    prepared = Preprocessing(short, 32, ((0.0,) * 3, (1.0,) * 3))([Image.fromarray(columns)])
    assert (255 * prepared[0, 0, 0]).round().tolist() == list(range(cut, cut + 32))


def test_clip_prepares_pictures_as_transformers_does(sample, networks):
    processors = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    theirs = processors.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    wide = sample.source.resize((97, 64))
    expected = theirs(wide, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(load_clip(networks["clip"]).preprocessing([wide]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name, load, kind", [("dino", load_dino, ViTModel), ("dinov2", load_dinov2, Dinov2Model)])
def test_dino_against_transformers(networks, sample, name, load, kind):
    backbone, model = load(networks[name]), kind.from_pretrained(networks[name]).eval()
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    resized = sample.source.resize((37, 37), Image.Resampling.BICUBIC).crop((2, 2, 34, 34))
    tensor = torch.from_numpy(((np.array(resized) / 255 - mean) / deviation).transpose(2, 0, 1)[None]).float()
    with torch.no_grad():
        expected = model(pixel_values=tensor).last_hidden_state[0, 0]
    torch.testing.assert_close(backbone.embed([sample.source])[0], expected, atol=1e-4, rtol=1e-4)


def test_networks_for_larger_pictures_take_them_or_crop(networks, sample, tmp_path):
    shutil.copytree(networks["clip"], tmp_path / "clip")
    config = CLIPModel.from_pretrained(tmp_path / "clip").config
    config.vision_config.image_size, config.vision_config.patch_size = 256, 64
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 256, "patch_size": 32}
    ViTModel(ViTConfig(**small), add_pooling_layer=False).save_pretrained(tmp_path / "dino")
    Dinov2Model(Dinov2Config(**small)).save_pretrained(tmp_path / "dinov2")
    for name, load, crop in (("clip", load_clip, 256), ("dino", load_dino, 256), ("dinov2", load_dinov2, 224)):
        backbone = load(tmp_path / name)
        assert backbone.preprocessing.crop == crop and len(backbone.embed([sample.source])) == 1


def test_a_network_that_is_not_there_or_of_another_kind_is_refused(networks, tmp_path):
    with pytest.raises(CheckpointError, match="could not be loaded"):
        load_dino(tmp_path / "nothing here")
    with pytest.raises(CheckpointError, match="missing or of another shape"):
        load_dino(networks["dinov2"])


PLAN = [
    ("L1", "source"), ("SSIM", "target"), ("LPIPS", "target"), ("CLIP-I", "target"), ("CLIP-T", "target caption"),
    ("CLIP-dir", "captions"), ("DINO", "source"), ("DINOv2", "target"), ("VIEScore overall", "source"),
]  # fmt: skip


def fair_judge(pictures, question):
    """Two numbers that tell the questions apart; the instruction must have reached it."""
    if len(pictures) == 2:
        assert "make it" in question
        return 'I think: ||V^=^V|| {"score": [8, 4.5], "reasoning": "fine"} ||V^=^V||'
    return '{"score": [9, 2], "reasoning": "grainy"}'


def comparison(sample, output):
    captions = {"source_caption": "a cat", "target_caption": "a dog"}
    return Comparison(output, sample.source, "make it a dog", sample.target, sample.mask, **captions)


def test_a_plan_is_measured_and_what_is_absent_says_why(sample, networks, where):
    tools = Tools(**networks, judge=fair_judge, judge_name="fair")
    measures, absent = build_measures(PLAN, tools, masks=True)
    assert list(absent) == ["LPIPS, target"] and "--lpips" in absent["LPIPS, target"]
    values, failed = evaluate_comparison(measures, comparison(sample, sample.target))
    assert not failed
    names = [f"L1, source{part}" for part in ("", ", inside", ", outside")]
    names += [f"SSIM, target{part}" for part in ("", ", inside", ", outside")]
    assert list(values) == names + [f"{name}, {reference}" for name, reference in PLAN[3:]]
    assert values["L1, source, outside"] < 1e-3 < values["L1, source, inside"]
    assert values["SSIM, target"] == pytest.approx(1) and values["CLIP-I, target"] == pytest.approx(1)
    assert -1 <= values["CLIP-T, target caption"] < 1
    assert values["VIEScore overall, source"] == pytest.approx(math.sqrt(4.5 * 2))
    clip = load_clip(networks["clip"])
    unit = [v / v.norm() for v in (*clip.embed([sample.source, sample.target]), *clip.embed_texts(["a cat", "a dog"]))]
    assert values["CLIP-dir, captions"] == pytest.approx(cosine(unit[1] - unit[0], unit[3] - unit[2]), abs=1e-5)
    copied, _ = evaluate_comparison(measures, comparison(sample, sample.source))
    assert copied["L1, source"] == 0 and copied["CLIP-dir, captions"] == 0
    assert copied["DINO, source"] == pytest.approx(1)


def test_an_output_of_another_size_is_resized_to_the_reference(sample):
    measures, _ = build_measures([("L1", "target")], Tools())
    large = sample.target.resize((128, 128), Image.Resampling.NEAREST)
    values, _ = evaluate_comparison(measures, comparison(sample, large))
    expected = np.abs(np.array(large.resize((64, 64)), float) - np.array(sample.target, float)).mean() / 255
    assert values["L1, target"] == pytest.approx(expected, abs=1e-6)


def test_unknown_measures_and_absent_networks_are_left_out(sample, tmp_path):
    tools = Tools(clip=tmp_path / "none")
    measures, absent = build_measures([("CLIP-I", "source"), ("DINO", "source"), ("FID", "source")], tools)
    assert measures == [] and len(absent) == 3
    assert "could not be loaded" in absent["CLIP-I, source"] and "--dino" in absent["DINO, source"]
    with pytest.raises(SettingError):
        tools.get("dino")


def test_what_cannot_be_measured_is_nan(sample, networks):
    measures, _ = build_measures(PLAN, Tools(**networks), masks=True)
    values, _ = evaluate_comparison(measures, Comparison(sample.source, sample.source, "make it"))
    known = {key for key, value in values.items() if not math.isnan(value)}
    assert known == {"L1, source", "DINO, source"}


SCORELESS = [
    "", "good", '{"score": "high"}', '{"score": [11, 2]}', "[1, 2, 3]", '{"score": [5, ', "from [0, 10] I give [7, 8]",
    '{"reasoning": "the picture [1]', "{score: [7, 8]}", '{"marks": [7, 8]}', '{"score": [1, 2]} or {"score": "high"}',
    pytest.param('{"score": [%s, 1]}' % ("9" * 400), id="huge"), '{"score": NaN}',
    pytest.param('{"score": [7, 8], "of": ' * 100_000, id="deep"),
]  # fmt: skip


@pytest.mark.parametrize("answer", SCORELESS)
def test_a_judge_without_scores_is_an_error_and_never_a_number(answer, sample):
    with pytest.raises(JudgeError):
        read_scores(answer)
    measures, _ = build_measures([("VIEScore semantic", "source")], Tools(judge=lambda pictures, question: answer))
    values, failed = evaluate_comparison(measures, comparison(sample, sample.target))
    assert values == {} and "no scores" in failed["VIEScore semantic, source"]


def test_viescore_is_the_smaller_part_and_the_root_of_the_product(sample):
    found = ask(fair_judge, sample.source, sample.target, "make it a dog")
    assert found == VIEScore((8, 4.5), (9, 2)) and (found.semantic, found.quality, found.overall) == (4.5, 2, 3)
    assert read_scores("[6, 0]") == (6, 0) and read_scores('{"score": 7}') == (7,)
    assert read_scores('```json\n{"reasoning": "a", "score": [1, 2]}\n```') == (1, 2)


@pytest.mark.parametrize(
    "answer, scores",
    [
        ('On a scale of [0, 10] I give {"score": [7, 8], "reasoning": "ok"}', (7, 8)),
        ('{"reasoning": "the picture [1] vs {x}", "score": [7, 8]}', (7, 8)),
        ('<think>say {"score": [3, 3]}? no.</think>{"score": [9, 8]}', (9, 8)),
        ('{"result": {"score": [7, 8]}}', (7, 8)),
        ('{"score": [7, 8], "of the hand": {"score": [1, 2]}}', (7, 8)),
        ('{"hand": {"score": [1, 2]}, "score": [7, 8]}', (7, 8)),
        ('[{"score": [7, 8]}]', (7, 8)),
        ("{x} is as [it] was: [6, 0]", (6, 0)),
    ],
)
def test_scores_are_read_wherever_they_stand(answer, scores):
    assert read_scores(answer) == scores


def test_card_has_backbone_preprocessing_and_reference_beside_every_number(sample, networks, tmp_path):
    plan = [("L1", "source"), ("PSNR", "source"), ("CLIP-I", "target"), ("CLIP-T", "target caption")]
    measures, absent = build_measures([*plan, ("LPIPS", "source")], Tools(**networks), masks=True)
    answers = {"copy the source": sample.source, "ours": sample.target}
    one = {name: evaluate_comparison(measures, comparison(sample, picture))[0] for name, picture in answers.items()}
    card = MeasuredCard(
        "a title", measures, list(answers), [one, one], {"half": [1]}, absent, ["1 row was skipped"],
        [Shown("make it a dog", {"source": sample.source, **answers})] * 2,
    )  # fmt: skip
    paths = card.save(tmp_path / "card")
    table = paths[1].read_text(encoding="utf-8")
    for line in table.splitlines():
        if line.startswith("CLIP-T"):
            assert "target caption" in line and "short side 32 px" in line and "cut after 12 tokens" in line
    assert "left out: LPIPS, source: " in table and "1 row was skipped" in table and "half: 1 edits" in table
    content = json.loads(paths[0].read_text(encoding="utf-8"))
    psnr = content["summary"][ALL]["copy the source"]["PSNR, source"]
    assert psnr == {"mean": None, "low": None, "high": None, "count": 2, "infinite": 2} and "∞ (2 of 2)" in table
    found = content["summary"][ALL]["ours"]["CLIP-I, target"]
    assert found["count"] == 2 and found["mean"] == pytest.approx(1)
    assert content["measures"]["CLIP-I, target"]["backbone"] == "clip"
    assert all(path.exists() for path in paths) and len(paths) == 4
    with Image.open(paths[3]) as page:
        assert len(page.getcolors(maxcolors=1_000_000)) > 100, "the pictures are on it, not only their names"
