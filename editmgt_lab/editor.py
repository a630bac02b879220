"""The stages joined: an instruction edits a picture, in one call or one decoding step at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .attention import capture_attention, check_blocks
from .basics.progress import Watch, hide, show
from .basics.sizes import LONG, bytes_of
from .blocks import Prepared
from .caching import FeatureCache
from .consolidation import choose_rows, mean_attention, to_heat
from .decoding import RegionHoldSampler, guide, map_to_hold_by, refuse_nan
from .errors import CheckpointError, SettingError, ShapeError
from .images import Fitted, MaskPicture, Picture, square_side, to_images, to_tensor
from .inputs import Task, asked_like, check_on_step, check_texts, fit_batch, free_cells, is_list, listed, paired, spread
from .results import DecodeStep, EditResult
from .settings import Defaults, Settings
from .text import Focus, TextCondition, TextEncoder, find_rows
from .transformer import AESTHETIC_SCORE, MaskedGenerativeTransformer
from .vq import VQModel

NO_SOURCE = object()  # in place of a picture: text to image


class Editor:
    """The three networks of EditMGT and the ways to use them: `edit`, `steps`, `generate`, and every stage alone.

    vq, transformer: on one device; text_encoder: on any; mask_token_id: the token that stands for "not known yet"
    (None: the vocabulary's last); defaults: what a call uses that does not say otherwise. `watch`: a context around
    each stage of an edit, which large networks show. Raises CheckpointError for parts that do not belong together.
    """

    def __init__(
        self,
        vq: VQModel,
        text_encoder: TextEncoder,
        transformer: MaskedGenerativeTransformer,
        *,
        mask_token_id: int | None = None,
        defaults: Defaults | None = None,
    ):
        config = transformer.config
        self.vq, self.text_encoder, self.transformer = vq.eval(), text_encoder.eval(), transformer.eval()
        mask = self.mask_token_id = config.vocab_size - 1 if mask_token_id is None else mask_token_id
        self.defaults = defaults or Defaults()
        self.watch: Watch = show if bytes_of(vq, transformer) >= LONG else hide
        for what, mine, others in (
            ("codes", config.codebook_size, vq.config.num_vq_embeddings),
            ("text width", config.text_width, text_encoder.width),
            ("pooled width", config.pooled_projection_dim, text_encoder.pooled_width),
        ):
            if mine != others:
                raise CheckpointError(
                    f"the parts do not belong together: {what} {mine} in the transformer, {others} beside it",
                    expected="parts that were trained together",
                    fix="take all parts from one checkpoint",
                )
        if type(mask) is not int or mask not in range(config.codebook_size, config.vocab_size):
            raise CheckpointError(
                f"mask_token_id is {mask!r}",
                expected=f"{config.codebook_size} to {config.vocab_size - 1}: in the vocabulary, beyond the codebook",
                fix="correct scheduler/scheduler_config.json",
            )

    def with_defaults(self, **changed: Any) -> Editor:
        """The same networks with other defaults: fields of `settings.Defaults`, of which a call can override some.

        Raises SettingError for a name that is none of them.
        """
        other = copy.copy(self)
        other.defaults = self.defaults.changed(changed)
        return other

    @property
    def device(self) -> torch.device:
        return self.transformer.project_to_hidden.weight.device

    @property
    def multiple(self) -> int:
        """Px along one side of a cell of the transformer's grid: pictures have sides of whole cells."""
        return self.vq.config.factor * (2 if self.transformer.config.downsample else 1)

    @asked_like(Settings.choose)
    @torch.no_grad()
    def prepare(
        self,
        image: Picture | Sequence[Picture],
        instruction: str | Sequence[str],
        *,
        focus: Focus | None = None,
        negative: str | Sequence[str] | None = "",
        mask: MaskPicture | Sequence[MaskPicture] | None = None,
        **settings: Any,
    ) -> Task:
        """What an edit decodes, checked and encoded, for a decoding loop of one's own; arguments and errors: `edit`."""
        pictures, texts = ([], listed(instruction)) if image is NO_SOURCE else paired(image, instruction)
        check_texts(texts, "caption" if image is NO_SOURCE else "instruction")
        batch, own = len(texts), self.defaults.without_source() if image is NO_SOURCE else self.defaults
        chosen = Settings.choose(own, batch, **settings)
        check_blocks(self.transformer, chosen.blocks)
        side = square_side(self.defaults.image_size, self.multiple) // self.vq.config.factor
        negatives = spread("" if negative is None else negative, batch, "negative texts")
        check_texts(negatives, "negative text", may_be_blank=True)
        if chosen.guidance_scale == 1 and any(text.strip() for text in negatives):
            raise SettingError(
                "a negative text, and guidance_scale is 1: nothing would read it",
                expected="guidance_scale above 1 with a negative text",
                fix="pass guidance_scale=3 or so, or leave the negative text out",
            )
        self.text_encoder.tokenize(negatives)  # refuses over-long ones, as the next line does
        spans = self.text_encoder.tokenize(texts)[-1]["offset_mapping"]
        words = None if focus is None else find_rows(focus, texts, spans)
        fitted = self._fit(pictures, spread(mask, batch, "masks")) if pictures else []
        free = free_cells(fitted, self.vq.config.factor).to(self.device) if mask is not None else None

        # Everything is checked; from here on the networks run.
        with self.watch("reading the picture", 1):
            source = self._encode(fitted) if fitted else None
        with self.watch("reading the text", 1):
            text = self.text_encoder([*negatives, *texts] if chosen.guidance_scale > 1 else texts).to(self.device)
        padding = None if chosen.heat_padding or text.padding is None else text.padding[-batch:]
        shape = (batch, side, side) if source is None else source.shape
        start = torch.full(shape, self.mask_token_id, device=self.device)
        fixed = torch.zeros_like(start, dtype=torch.bool) if free is None else ~free
        return Task(
            settings=chosen,
            start=start if source is None else torch.where(fixed, source, start),
            source=source,
            fixed=fixed,
            text=text,
            words=choose_rows(words, padding, batch, text.tokens.shape[1]).to(self.device),
            instructions=texts,
            negatives=negatives,
            focus=focus,
            fitted=fitted,
            single=not (is_list(image) or is_list(instruction)),
        )

    @asked_like(prepare)
    def edit(self, *asked: Any, on_step: Callable[[DecodeStep], None] | None = None, **options: Any) -> EditResult:
        """Edit one picture, or a list of them, as the instruction says. None is the model's own default.

        image: whatever `opening.load_image` takes, fitted to the model's grid with its aspect ratio kept; all pictures
        of a list must fit one grid. Lists of pictures and of instructions have one length; a single one serves all.
        hold_threshold: λ in [0, 1]: where the heat map is lower, the source's tokens are held; 0 holds nothing. Which
        of them, the model's own rule says, a name in decoding.HOLDS: "agree" those that the network itself draws, so
        that λ = 1 edits still; `with_defaults(hold="commit")` holds every one.
        strength: γ in [0, 10] of the attention injection: 1 changes nothing, more stays closer to the source.
        guidance_scale: 1 (off) or more; the unguided half has the `negative` text, which 1 refuses, and the source.
        temperature: of the noise on the confidence, in the first and the last step (a single number falls to 0.01), for
        orders by confidence; token_temperature: of the draw of tokens, 1 as the network says, less is surer.
        seed: for every picture alike, or one for each; a picture's random numbers do not depend on the others of its
        batch, nor does its result, but for rounding, which in half precision can change some tokens.
        blocks: whose attention makes the heat map; focus: the words of the instruction to localise by (None: all).
        heat_from: the picture in which the text's attention is mapped, "image" (masked at first), "source" or "both";
        with a strength of 0 nothing looks at the source, and it is the image.
        order: in which the tokens are decided, a name in decoding.ORDERS; draw: how they are drawn, a name in DRAWS,
        "race" as in the released code or "inverse", the faster one on a CPU; revise: a token that has become less
        probable than this is masked again, 0 revises nothing (see RegionHoldSampler).
        refresh_every: k computes every position in every k-th step, and in the others only those that are still to be
        decided, which is faster and not exact (see FeatureCache); 1 is exact.
        mask: where the picture may change, of its aspect, as masks.read_mask reads it; elsewhere all tokens stay.
        on_step: called with every step as it is done; what it raises ends the edit.

        Raises ImageError, TextError or SettingError before any network runs.
        """
        check_on_step(on_step)
        return self._finish(self.prepare(*asked, **options), on_step)

    @asked_like(prepare)
    def steps(self, *asked: Any, **options: Any) -> Iterator[DecodeStep]:
        """The same edit, one DecodeStep at a time; the arguments and errors are those of `edit`."""
        return self.decode(self.prepare(*asked, **options))

    def generate(
        self,
        caption: str | Sequence[str],
        *,
        steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int | Sequence[int] | None = None,
        token_temperature: float | None = None,
    ) -> EditResult:
        """Text to image with the same weights and no source: a square picture for each caption.

        guidance_scale: None is the defaults' caption_guidance_scale. Raises TextError or SettingError beforehand.
        """
        task = self.prepare(
            NO_SOURCE, caption, hold_threshold=0, steps=steps, guidance_scale=guidance_scale, seed=seed,
            token_temperature=token_temperature,
        )  # fmt: skip
        return self._finish(task)

    @torch.no_grad()
    def tokenize(self, image: Picture | Sequence[Picture]) -> Tensor:
        """Stage 1: pictures, fitted to the grid → tokens, long [B, h, w] on the editor's device. Raises ImageError."""
        pictures = listed(image)
        return self._encode(self._fit(pictures, [None] * len(pictures)))

    @torch.no_grad()
    def detokenize(self, tokens: Tensor) -> list[Image.Image]:
        """Tokens [B, h, w] → pictures. Raises ShapeError, also for mask tokens."""
        if not isinstance(tokens, Tensor):
            raise ShapeError(
                f"the tokens are a {type(tokens).__name__}", expected="a tensor [B, h, w]", fix="torch.tensor(tokens)"
            )
        return to_images(self.vq.decode(tokens.to(self.device)))

    @torch.no_grad()
    def encode_text(self, instruction: str | Sequence[str]) -> TextCondition:
        """Stage 2: texts → text tokens [B, L, D] and pooled vectors [B, P]; "" is the unconditional text.

        Raises TextError for what is no text, and an over-long one.
        """
        texts = listed(instruction)
        check_texts(texts, may_be_blank=True)
        return self.text_encoder(texts).to(self.device)

    def _fit(self, pictures: Sequence[Picture], masks: Sequence[MaskPicture | None]) -> list[Fitted]:
        return fit_batch(pictures, masks, pixels=self.defaults.image_size, multiple=self.multiple)

    def _encode(self, fitted: Sequence[Fitted]) -> Tensor:
        return self.vq.encode(to_tensor([each.source for each in fitted]).to(self.device))

    @torch.no_grad()
    def decode(self, task: Task) -> Iterator[DecodeStep]:
        """The one decoding loop, for edits and for text to image: of a task that `prepare` made."""
        for index, fields in enumerate(self._decide(task)):
            copies = [field.to("cpu", copy=True) for field in fields]  # only here is a device waited for
            refuse_nan(copies[2])
            yield DecodeStep(index, *copies, task.single, self.detokenize)

    def _decide(self, task: Task) -> Iterator[tuple[Tensor, ...]]:
        """The tensors of every DecodeStep, on the device, for which nothing here waits."""
        chosen, tokens, attended = task.settings, task.start, 0  # over the steps so far
        sampler, prepared, everything = self._sampler(chosen), self._prepared(task), torch.ones_like(task.fixed)
        generators = [torch.Generator(self.device).manual_seed(seed) for seed in chosen.seeds]
        for index in range(chosen.steps):
            logits, attention = self._predict(task, tokens, timestep=chosen.steps - 1 - index, prepared=prepared)
            attended = attended + attention
            heat, so_far = self._heat(attention, task), self._heat(attended, task)
            decision = sampler.decide(
                logits, tokens, index, heat=map_to_hold_by(chosen.hold_by, heat, so_far),
                hold_threshold=chosen.hold_threshold, source=task.source, fixed=task.fixed, generator=generators,
            )  # fmt: skip
            tokens, held = decision.tokens, decision.held | task.fixed
            computed = everything if (cache := prepared.layout.cache) is None else cache.computed[-len(tokens) :]
            kept = held if task.source is None else held & (tokens == task.source)
            yield tokens, decision.masked, decision.confidence, heat, so_far, held, kept, decision.sampled, computed

    def _sampler(self, chosen: Settings) -> RegionHoldSampler:
        return RegionHoldSampler(
            self.mask_token_id, chosen.steps, temperature=chosen.temperature, hold=chosen.hold, order=chosen.order,
            token_temperature=chosen.token_temperature, draw=chosen.draw, revise=chosen.revise,
        )  # fmt: skip

    def _prepared(self, task: Task) -> Prepared:
        """What the passes of all steps share; with guidance each pass has the pictures twice."""
        chosen, passes, height, width = task.settings, len(task.text.tokens) // len(task.start), *task.start.shape[1:]
        size = [self.vq.config.factor * width, self.vq.config.factor * height, 0, 0, AESTHETIC_SCORE]
        return self.transformer.prepare(
            task.start.repeat(passes, 1, 1),
            task.text,
            source=None if task.source is None else task.source.repeat(passes, 1, 1),
            strength=chosen.strength,
            bias_text=chosen.bias_text,
            micro_conditions=torch.tensor([size] * len(task.text.tokens), dtype=torch.float32, device=self.device),
            cache=FeatureCache(chosen.refresh_every) if chosen.refresh_every > 1 else None,
        )

    def _predict(
        self, task: Task, tokens: Tensor, *, timestep: int, prepared: Prepared | None = None
    ) -> tuple[Tensor, Tensor]:
        """One forward pass, guided: logits [B, codebook, h, w] and the guided half's attention, on its positions."""
        chosen, batch, rows = task.settings, len(tokens), len(task.text.tokens)
        timesteps, shared = torch.full((rows,), timestep, device=self.device), prepared or self._prepared(task)
        heard = {"keys": chosen.heat_keys, "mapped": chosen.heat_from, "pictures": slice(rows - batch, rows)}
        with capture_attention(self.transformer, chosen.blocks, heads="mean", **heard) as captured:
            logits = self.transformer(tokens.repeat(rows // batch, 1, 1), shared, timesteps).float()
        if rows > batch:
            logits = guide(logits, chosen.guidance_scale)
        maps = [captured.text_to_image(block) for block in captured.blocks]
        return logits, mean_attention(maps, task.words).unflatten(1, captured.grid)

    def _heat(self, attention: Tensor, task: Task) -> Tensor:
        """The heat map [B, h, w] of attention on the positions, of one step or of several together."""
        return to_heat(attention, smooth=task.settings.smooth, token_grid=tuple(task.start.shape[1:]))

    def _finish(self, task: Task, on_step: Callable[[DecodeStep], None] | None = None) -> EditResult:
        with self.watch("decoding, step by step", task.settings.steps) as done:
            for last in self.decode(task):
                if on_step is not None:
                    on_step(last)
                done()
        with self.watch("painting the picture", 1):
            images = self.detokenize(last.tokens)
        return EditResult(
            images=images,
            tokens=last.tokens,
            last_heat=last.heat,
            mean_heat=last.heat_so_far,
            held=last.held,
            instructions=task.instructions,
            settings=task.settings,
            sources=[each.source for each in task.fitted],
            geometries=[each.geometry for each in task.fitted],
            readings=[each.reading for each in task.fitted] if any(each.reading for each in task.fitted) else [],
            source_tokens=None if task.source is None else task.source.cpu(),
            fixed=task.fixed.cpu() if task.fixed.any() else None,
            focus=task.focus,
            negatives=task.negatives,
            single=task.single,
        )
