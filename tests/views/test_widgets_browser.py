"""Exported pages, opened from disk in a browser without a network and driven by hand and by keyboard."""

import json

import matplotlib
import numpy as np
import pytest
from playwright.sync_api import expect

import editmgt_lab as lab
from editmgt_lab import views
from editmgt_lab.views.export import PAGE
from editmgt_lab.views.hold_studio.hold_studio import rounded
from editmgt_lab.views.overlays import HEAT_MAP
from editmgt_lab.views.recording import STATES
from editmgt_lab.views.widget import HERE, SHARED
from tests.support import PATIENCE, SLACK
from tests.support.browser import answer_time, drawn, opened, panel, point

SCHEMES = ("light", "dark")
TITLES = {
    "attention_explorer": "Attention explorer", "decode_player": "Decode player", "hold_studio": "Hold studio",
    "injection_dial": "Injection dial", "token_lab": "Token lab",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(editor, picture):
    return views.record(
        editor, picture(64, 48), "make the ball blue", attention=True, steps=6, seed=3, hold_threshold=0.1,
        refresh_every=4, progress=lambda *_: None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tokens(editor, picture):
    """A token lab with two changes made."""
    changed = views.token_lab(editor, picture(64, 48))
    changed.pending.result(timeout=PATIENCE)
    for place in ((1, 2), (4, 5)):
        changed.swap(*place, (int(changed.tokens[-1][place]) + 7) % 32).result(timeout=PATIENCE)
    return changed


@pytest.fixture(scope="module")
def dial(editor, picture):
    dial = views.injection_dial(editor, picture(64, 48), "make the ball blue", strengths=(0, 1, 2.5), steps=3)
    dial.pending.result(timeout=PATIENCE)
    return dial


@pytest.fixture(scope="module")
def studio(editor, picture):
    careful = editor.with_defaults(hold="agree")  # which holds less than lies below λ
    studio = views.hold_studio(careful, picture(64, 48), "make the ball blue", threshold=0.4, steps=3, seed=2)
    studio.pending.result(timeout=PATIENCE)
    return studio


@pytest.fixture(scope="module")
def pages(run, tokens, dial, studio, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    return {
        "attention_explorer": views.attention_explorer(run).export(folder / "attention_explorer.html"),
        "decode_player": views.decode_player(run).export(folder / "decode_player.html"),
        "hold_studio": studio.export(folder / "hold_studio.html"),
        "injection_dial": dial.export(folder / "injection_dial.html"),
        "token_lab": tokens.export(folder / "token_lab.html"),
    }


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory):
    return tmp_path_factory.mktemp("screenshots")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_player_plays_steps_and_explains_a_cell(browser, pages, run, screenshots, scheme):
    grid = run.states.shape[1:]
    with opened(browser, pages["decode_player"], scheme=scheme) as page:
        step, slider, picture = page.locator(".lab-steps output"), page.get_by_role("slider"), page.locator("img").first
        expect(step).to_have_text("step 1 of 6")
        before = picture.get_attribute("src")
        slider.fill("3")
        expect(step).to_have_text("step 4 of 6")
        assert picture.get_attribute("src") != before
        expect(page.locator(".lab-thumb[aria-current=step]")).to_have_text("4")
        counts = [int(count) for count in page.locator(".lab-legend:visible .lab-number").all_inner_texts()]
        assert counts == np.bincount(run.states[3].ravel(), minlength=len(STATES)).tolist()

        cell = int(np.flatnonzero(run.states[3] == STATES.index("just decided"))[0])
        point(panel(page, "tokens"), cell, grid, click=True)
        rows = page.locator(".lab-candidates > div")
        codes = [int(code) for code in rows.locator(".lab-number").all_inner_texts()]
        assert codes[:5] == run.candidates[3].reshape(-1, 5)[cell].tolist()
        share = run.probabilities[3].reshape(-1, 5)[cell, 0]
        shown = rows.first.locator("span").last.inner_text()
        assert float(shown.rstrip("%")) == pytest.approx(100 * share, abs=0.6)
        taken = page.locator(".lab-candidates > [aria-current=true] .lab-number")
        expect(taken).to_have_text(str(run.sampled[3].ravel()[cell]))
        expect(page.locator(".lab-detail")).to_contain_text("just decided")
        page.screenshot(path=screenshots / f"decode_player_{scheme}.png", full_page=True)

        page.mouse.move(0, 0)
        slider.fill("5")
        row, column = divmod(cell, grid[1])
        expect(page.locator(".lab-detail h3")).to_contain_text(f"row {row + 1}, column {column + 1}")
        expect(page.locator(".lab-detail")).to_contain_text(STATES[run.states[5].ravel()[cell]])


def test_the_player_plays_to_the_end_and_pauses(browser, pages):
    with opened(browser, pages["decode_player"]) as page:
        step, pace = page.locator(".lab-steps output"), 600  # ms from step to step, as lab.js has it
        page.clock.install(time=0)
        page.clock.pause_at(60_000)  # from here on time passes only where it is told to
        page.get_by_role("button", name="play").click()
        page.clock.run_for(pace)
        expect(step).to_have_text("step 2 of 6")
        page.get_by_role("button", name="pause").click()
        page.clock.run_for(10 * pace)
        expect(step).to_have_text("step 2 of 6")
        page.get_by_role("button", name="one step on").click()
        page.get_by_role("button", name="play").click()
        page.clock.run_for(10 * pace)
        expect(step).to_have_text("step 6 of 6")
        expect(page.get_by_role("button", name="play")).to_be_visible()


def test_the_player_colours_by_confidence(browser, pages, run):
    grid = run.states.shape[1:]
    with opened(browser, pages["decode_player"]) as page:
        page.get_by_role("button", name="confidence").click()
        page.get_by_role("slider").fill("1")
        competed = np.isfinite(run.confidence[1])
        canvas = panel(page, "tokens")
        least = int(np.where(competed, run.confidence[1], np.inf).argmin())
        most = int(np.where(competed, run.confidence[1], -np.inf).argmax())
        assert sum(drawn(canvas, least, grid)[:3]) < 60 < 600 < sum(drawn(canvas, most, grid)[:3])
        if not competed.all():
            assert drawn(canvas, int(np.flatnonzero(~competed)[0]), grid)[3] == 0, "blank"


def test_the_player_colours_by_what_was_computed(browser, pages, run):
    grid = run.states.shape[1:]
    assert run.computed[0].all() and not run.computed[-1].all()
    with opened(browser, pages["decode_player"]) as page:
        page.get_by_role("button", name="computed").click()
        page.get_by_role("slider").fill("5")
        counts = [int(count) for count in page.locator(".lab-legend:visible .lab-number").all_inner_texts()]
        assert counts == np.bincount(run.computed[-1].ravel(), minlength=2).tolist()
        canvas, shares = panel(page, "tokens"), page.locator(".lab-thumb .lab-shares")
        colours = {}
        for kind in (0, 1):
            cells = np.flatnonzero(run.computed[-1] == kind)
            colours[kind] = {tuple(drawn(canvas, int(cell), grid)) for cell in cells[:3]}
            assert len(colours[kind]) == 1
        assert colours[0] != colours[1]
        widths = shares.locator("i:last-child").evaluate_all(
            "parts => parts.map((part) => parseFloat(part.style.width))"
        )
        np.testing.assert_allclose(widths, 100 * run.computed.mean(axis=(1, 2)), atol=0.01)
        point(canvas, int(np.flatnonzero(run.computed[-1] == 0)[0]), grid)
        expect(page.locator(".lab-detail")).to_contain_text("from the cache")
        assert panel(page, "from the cache").count() == 1, "read aloud"


def test_the_player_answers_the_keyboard(browser, pages, run):
    columns = run.states.shape[2]
    with opened(browser, pages["decode_player"]) as page:
        panel(page, "tokens").focus()
        for key in ("ArrowRight", "ArrowRight", "ArrowDown", "Enter"):
            page.keyboard.press(key)
        expect(page.locator(".lab-detail h3")).to_have_text("row 2, column 2")
        assert panel(page, "tokens: row 2, column 2").count() == 1, f"of {columns}: read aloud"


@pytest.mark.parametrize("order", ["confidence", "halton"])
def test_the_player_says_by_what_a_cell_competed(browser, editor, picture, tmp_path, order):
    run = views.record(editor, picture(), "make the ball blue", steps=3, seed=3, hold_threshold=0, order=order,
                       progress=lambda *_: None)  # fmt: skip
    grid, last = run.states.shape[1:], len(run.previews) - 1
    by = {
        "confidence": ("confidence", "log p + noise", "surer"),
        "halton": ("priority", "by the order halton", "goes first"),
    }
    late = {"confidence": "was not confident enough", "halton": "its turn has not come"}[order]
    with opened(browser, views.decode_player(run).export(tmp_path / "page.html")) as page:
        page.get_by_role("button", name="confidence").click()
        detail, scale = page.locator(".lab-detail"), page.locator(".lab-legend:visible")
        for step, masked in ((0, True), (1, False), (last, False)):
            what, why, most = by[order] if step < last else ("confidence", "log p", "surer")
            page.get_by_role("slider").fill(str(step))
            competed = np.isfinite(run.confidence[step]) & ((run.states[step] == STATES.index("masked")) == masked)
            point(panel(page, "tokens"), int(np.flatnonzero(competed)[0]), grid)
            number = f"{run.confidence[step][competed][0]:.2f}".replace("-", "−")
            expect(detail).to_contain_text(f"{what} {number} ({why})")
            expect(scale).to_contain_text(most)
            if masked:
                expect(detail).to_contain_text(f"was drawn, but {late}: masked again")


def test_the_player_says_which_tokens_were_taken_back(browser, editor, picture, tmp_path):
    run = views.record(editor, picture(), "make the ball blue", steps=4, seed=3, hold_threshold=0, revise=0.9,
                       progress=lambda *_: None)  # fmt: skip
    taken_back = (run.states == STATES.index("masked")) & np.isinf(run.confidence)
    step, cell = (int(numbers[0]) for numbers in np.nonzero(taken_back.reshape(len(run.previews), -1)))
    with opened(browser, views.decode_player(run).export(tmp_path / "page.html")) as page:
        page.get_by_role("slider").fill(str(step))
        point(panel(page, "tokens"), cell, run.states.shape[1:])
        token = run.sampled[step].ravel()[cell]
        expect(page.locator(".lab-detail")).to_contain_text(
            f"token {token}, decided before, has become improbable: masked again; did not compete in this step"
        )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_explorer_shows_where_words_and_patches_look(browser, pages, run, screenshots, scheme):
    plan = run.attention.plan
    explorer = views.attention_explorer(run)
    with opened(browser, pages["attention_explorer"], scheme=scheme) as page:
        say, canvas = page.locator(".lab-say"), panel(page, "picture")
        page.get_by_role("slider").fill("2")
        explorer.step = 2
        word = [word.name for word in plan.words].index("ball")
        page.locator(".lab-chip", has_text="ball").hover()
        expect(say).to_contain_text("Where “ball” looks")
        look = explorer.look([word], "image")
        assert f"{look.sum():.0%} of its attention" in say.inner_text()
        brightness = [sum(drawn(canvas, cell, plan.grid)[:3]) for cell in range(plan.positions)]
        assert np.argmax(brightness) == look.argmax() and np.argmin(brightness) == look.argmin()
        page.screenshot(path=screenshots / f"attention_explorer_word_{scheme}.png", full_page=True)

        point(canvas, 7, plan.grid)
        picked = list(explorer.picked)
        rows = run.attention.patch_maps(2).reshape(-1, plan.positions, plan.keys)[picked].mean(axis=0)[7]
        words, image = rows[: len(plan.words)], rows[len(plan.words) :][: plan.positions]
        expect(say).to_contain_text(f"words {words.sum():.0%}, picture {image.sum():.0%}")
        brightness = [sum(drawn(canvas, cell, plan.grid)[:3]) for cell in range(plan.positions)]
        inside = np.arange(plan.positions) != 7
        assert np.argmax(np.where(inside, brightness, 0)) == np.argmax(np.where(inside, image, 0))
        shares = [float(share.strip("<%")) for share in page.locator(".lab-chip small").all_inner_texts()]
        assert shares[words.argmax()] == max(shares), "whole percents: the largest may be shared"
        page.screenshot(path=screenshots / f"attention_explorer_patch_{scheme}.png", full_page=True)


@pytest.mark.parametrize("heat_from", ["both", "source"])
def test_each_picture_shows_where_words_look_in_it(browser, editor, picture, tmp_path, heat_from):
    run = views.record(
        editor, picture(64, 48), "make the ball blue", attention=True, steps=2, seed=3, heat_from=heat_from, blocks=[0],
        progress=lambda *_: None,
    )  # fmt: skip
    plan, explorer = run.attention.plan, views.attention_explorer(run)
    titles = {"image": "picture", "source": "source"} | ({"both": "source + picture"} if heat_from == "both" else {})
    word = [word.name for word in plan.words].index("ball")
    with opened(browser, explorer.export(tmp_path / "page.html")) as page:
        page.locator(".lab-chip", has_text="ball").hover()
        for mapped, title in titles.items():
            canvas = page.get_by_role("application", name=title, exact=True)
            shown = [drawn(canvas, cell, plan.grid)[:3] for cell in range(plan.positions)]
            np.testing.assert_allclose(shown, heat_colours_of(explorer.look([word], mapped)), atol=8)
        shares = [explorer.look([word], mapped).sum() for mapped in ("image", "source")]
        assert all(share > 0.0995 for share in shares), "said in whole percents"
        say = page.locator(".lab-say")
        expect(say).to_contain_text(f"{shares[0]:.0%} of its attention is on the picture")
        expect(say).to_contain_text(f"{shares[1]:.0%} on the source")
        figures = page.locator("figcaption", has_text="•").filter(has_not_text="blocks × heads")
        expect(figures).to_have_text(f"{titles[heat_from]}•")
        explorer.picked = [0]  # the first of the blocks × heads, which are all drawn as the heat map takes them
        maps, grid = panel(page, "blocks × heads"), (len(plan.blocks) * plan.grid[0], plan.heads * plan.grid[1])
        cells = np.arange(np.prod(grid)).reshape(grid)[: plan.grid[0], : plan.grid[1]].ravel()
        shown = [drawn(maps, int(cell), grid)[:3] for cell in cells]
        np.testing.assert_allclose(shown, heat_colours_of(explorer.look([word])), atol=8)


def heat_colours_of(look):
    """[rows, columns] from its least to its most → 0 … 255, [rows · columns, 3]."""
    return 255 * matplotlib.colormaps[HEAT_MAP]((look - look.min()) / np.ptp(look)).reshape(-1, 4)[:, :3]


def test_without_injection_no_patch_looks_at_the_source(browser, editor, picture, tmp_path):
    run = views.record(
        editor, picture(64, 48), "make the ball blue", attention=True, steps=2, seed=3, strength=0,
        progress=lambda *_: None,
    )  # fmt: skip
    plan, explorer = run.attention.plan, views.attention_explorer(run)
    with opened(browser, explorer.export(tmp_path / "page.html")) as page:
        say, canvas = page.locator(".lab-say"), panel(page, "picture")
        for step, cell in ((0, 7), (1, plan.positions - 1)):
            page.get_by_role("slider").fill(str(step))
            point(canvas, cell, plan.grid)
            rows = run.attention.patch_maps(step).reshape(-1, plan.positions, plan.keys)
            look = rows[list(explorer.picked)].mean(axis=0)[cell]
            words, image = look[: len(plan.words)], look[len(plan.words) :]
            said = f"words {words.sum():.0%}, picture {image.sum():.0%}, padding"
            expect(say).to_contain_text(said)
            brightness = [sum(drawn(canvas, each, plan.grid)[:3]) for each in range(plan.positions)]
            inside = np.arange(plan.positions) != cell
            assert np.argmax(np.where(inside, brightness, 0)) == np.argmax(np.where(inside, image, 0))


@pytest.mark.parametrize("width", [620, 780])
def test_what_the_explorer_says_moves_nothing_from_under_the_pointer(browser, pages, width):
    with opened(browser, pages["attention_explorer"], width=width) as page:
        slider, heights = page.get_by_role("slider"), set()
        for element in (page.locator(".lab-chip").last, panel(page, "tokens")):
            element.hover()
            heights.add(slider.bounding_box()["y"] + page.evaluate("scrollY"))
        assert len(heights) == 1


def test_the_explorer_picks_one_map_several_or_all(browser, pages, run):
    plan = run.attention.plan
    grid = (len(plan.blocks), plan.heads)
    with opened(browser, pages["attention_explorer"]) as page:
        say, maps = page.locator(".lab-say"), panel(page, "blocks × heads")
        point(maps, 3, grid, click=True)
        expect(say).to_contain_text("block 1, head 1")
        point(maps, 0, grid, click=True, modifiers=["Shift"])
        page.mouse.move(0, 0)
        expect(say).to_contain_text("mean of 2 of 6 maps")
        page.get_by_role("button", name="head 0 of every block").click()
        expect(say).to_contain_text("mean of 3 of 6 maps")
        page.get_by_role("button", name="all", exact=True).click()
        expect(say).to_contain_text("mean of 6 of 6 maps")

        for name in ("ball", "blue"):
            page.locator(".lab-chip", has_text=name).click(modifiers=["Shift"])
        page.mouse.move(0, 0)
        page.locator(".lab-chip", has_text="blue").blur()
        expect(say).to_contain_text("Where “ball”, “blue” look")
        page.get_by_role("button", name="all words").click()
        expect(say).to_contain_text("Where all words look")


@pytest.mark.parametrize("name, title", [("attention_explorer", "picture"), ("attention_explorer", "blocks × heads"),
                                         ("decode_player", "tokens"), ("token_lab", "picture")])  # fmt: skip
def test_a_hover_is_answered_at_once(browser, pages, name, title):
    with opened(browser, pages[name]) as page:
        assert answer_time(panel(page, title)) < 50 * SLACK


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_token_lab_names_codes_and_steps_through_changes(browser, pages, tokens, screenshots, scheme):
    grid = tokens.tokens[0].shape
    with opened(browser, pages["token_lab"], scheme=scheme) as page:
        decoded = page.locator("img").nth(2)
        point(panel(page, "picture"), 20, grid)
        title = page.locator(".lab-detail h3")
        expect(title).to_contain_text(f"code {tokens.tokens[-1].ravel()[20]} at row")
        point(panel(page, "codebook"), 3, (1, 32))
        order = np.argsort(-tokens.counts, kind="stable")
        expect(title).to_have_text(f"code {order[3]}")
        page.screenshot(path=screenshots / f"token_lab_{scheme}.png", full_page=True)

        changed = decoded.get_attribute("src")
        expect(page.locator(".lab-buttons")).to_contain_text("2 of 2 changes")
        page.get_by_role("button", name="Undo").click()
        expect(page.locator(".lab-buttons")).to_contain_text("1 of 2 changes")
        assert decoded.get_attribute("src") != changed
        page.get_by_role("button", name="Reset").click()
        expect(page.locator(".lab-buttons")).to_contain_text("nothing is changed")
        expect(page.get_by_role("button", name="Undo")).to_be_disabled()
        page.get_by_role("button", name="Redo").click()
        point(panel(page, "decoded"), grid[1] + 2, grid)
        expect(title).to_contain_text(f"code {tokens.tokens[1][1, 2]} at row 2, column 3")
        expect(page.locator(".lab-hint")).to_contain_text("no kernel")


def test_the_token_lab_counts_the_cells_of_the_picture_as_it_is_now(browser, pages, tokens):
    now = tokens.tokens[-1]
    code = int(now[1, 2])
    count = int((now == code).sum())
    assert count != tokens.counts[code], "or the counts of the first picture would do"
    order = np.argsort(-tokens.counts, kind="stable")
    with opened(browser, pages["token_lab"]) as page:
        point(panel(page, "picture"), now.shape[1] + 2, now.shape, click=True)
        cells = page.locator(".lab-detail p")
        expect(cells).to_contain_text(f"in {count - 1} other cell")
        book = panel(page, "codebook")
        point(book, int(np.flatnonzero(order == code)[0]), (1, 32))
        expect(page.locator(".lab-detail h3")).to_have_text(f"code {code}")
        expect(cells).to_have_text(f"in {count} cell{'' if count == 1 else 's'} of this picture")
        used = "once" if count == 1 else f"{count} times"
        assert panel(page, f"code {code}, used {used}").count() == 1, "read aloud"


@pytest.mark.parametrize(
    "bad", [("a", 0, 0), (0, 0.5, 0), (0, True, 0), (0, 0, None), (-1, 0, 0), (0, 0, 32), (12, 0, 0)]
)
def test_a_swap_that_cannot_be_is_refused(tokens, bad):
    before = len(tokens.states)
    with pytest.raises(lab.LabError, match="count from 0"):
        tokens.swap(*bad)
    assert len(tokens.states) == before and not tokens.busy


def test_a_swap_takes_numpys_numbers(editor, picture, tmp_path):
    changed = views.token_lab(editor, picture())
    changed.pending.result(timeout=PATIENCE)
    changed.swap(*np.array([1, 2, 3])).result(timeout=PATIENCE)
    with np.load(changed.save_arrays(tmp_path / "arrays.npz")) as saved:
        assert json.loads(str(saved["settings"])) == {"changes": [[1, 2, 3]]}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_dial_shows_the_nearest_strength(browser, pages, dial, screenshots, scheme):
    with opened(browser, pages["injection_dial"], scheme=scheme) as page:
        slider, edit = page.get_by_role("slider"), page.get_by_role("img", name="edit")
        first = edit.get_attribute("src")
        slider.fill("2.2")
        expect(page.locator(".lab-steps output")).to_have_text("γ = 2.20, ℰ = log γ = 0.79")
        said = f"γ = 2.5, L1 to the source {dial.results[2]['l1']:.3f}"
        expect(page.locator("figcaption .lab-note").nth(1)).to_contain_text(said)
        assert edit.get_attribute("src") != first
        page.get_by_role("button", name="γ = 0", exact=True).click()
        expect(page.locator(".lab-steps output")).to_have_text("γ = 0.00, ℰ = log γ = −∞")
        expect(page.locator(".lab-thumb[aria-current=step]")).to_have_text("0")
        page.screenshot(path=screenshots / f"injection_dial_{scheme}.png", full_page=True)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_studio_colours_what_lambda_holds(browser, pages, studio, screenshots, scheme):
    grid = studio.heat.shape
    with opened(browser, pages["hold_studio"], scheme=scheme) as page:
        slider, held = page.get_by_role("slider"), panel(page, "held")
        for threshold in (0.25, 0.6):
            slider.fill(str(threshold))
            note = page.locator("figcaption", has_text="below λ")
            share = (studio.heat < threshold).mean()
            expect(note).to_contain_text(f"{share:.0%} below λ")
            for cell in (int(studio.heat.argmin()), int(studio.heat.argmax())):
                blue = drawn(held, cell, grid)[2] > 100 and drawn(held, cell, grid)[3] > 100
                assert blue == (studio.heat.ravel()[cell] < threshold)
        rows = page.locator(".lab-table tbody tr")
        expect(rows).to_have_count(2)
        expect(page.locator(".lab-table tr[aria-current=true]")).to_contain_text("0.40")
        slider.fill("0.4")
        really = studio.made[0.4]["by heat"].held[0].numpy().ravel()
        released = np.flatnonzero(~really & (studio.heat.ravel() < 0.4))
        assert 0 < really.mean() < 0.09 and len(released)
        said = f"{really.mean():.1%} held, in blue"
        expect(page.locator("figcaption", has_text="in blue")).to_contain_text(said)
        assert drawn(held, int(np.flatnonzero(really)[0]), grid)[3] > 100 > drawn(held, int(released[0]), grid)[3]
        rows.first.click()
        expect(page.locator(".lab-steps output")).to_have_text("λ = 0.00")
        slider.fill("0.3")
        page.screenshot(path=screenshots / f"hold_studio_{scheme}.png", full_page=True)


@pytest.mark.parametrize(
    "theme, paper",
    [("vscode-dark", "#1e1e1e"), ("vscode-high-contrast", "#000000"),
     ("vscode-light", "#ffffff"), ("vscode-high-contrast-light", "#ffffff")],
)  # fmt: skip
def test_colours_follow_the_theme_of_vs_code_and_not_the_system(browser, pages, theme, paper):
    system = "dark" if theme.endswith("light") else "light"
    with opened(browser, pages["token_lab"], scheme=system) as page:
        page.evaluate(
            """([theme, paper]) => {
              document.body.dataset.vscodeThemeKind = theme;
              document.body.style.setProperty("--vscode-editor-background", paper);
            }""",
            [theme, paper],
        )
        colours = page.locator(".lab").evaluate(
            """(lab) => ["--wrong", "--accent"].map((name) => getComputedStyle(lab).getPropertyValue(name).trim())"""
        )
        for colour in colours:
            assert contrast(colour, paper) >= 4.5, f"{colour} on {paper}"


def contrast(*colours):
    """Of two colours such as #1e1e1e, from 1 to 21, as the WCAG have it."""
    lights = []
    for colour in colours:
        parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        lights.append(linear @ (0.2126, 0.7152, 0.0722))
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.fixture(scope="module")
def scored(studio, pages):
    """The hold studio's page with the numbers that it has of an edit of the drawn world."""
    results, more = studio.results, {"score": 9.94, "leakage": 0.0123}
    studio.results = [each | {"numbers": [numbers | more for numbers in each["numbers"]]} for each in results]
    file = studio.export(pages["hold_studio"].with_name("scored.html"))
    studio.results = results
    return file


def test_a_wide_table_scrolls_in_a_narrow_window(browser, scored, screenshots):
    with opened(browser, scored, width=420) as page:
        expect(page.get_by_role("columnheader")).to_have_count(8)
        assert page.evaluate("document.scrollingElement.scrollWidth <= document.scrollingElement.clientWidth")
        page.screenshot(path=screenshots / "hold_studio_scored_narrow.png", full_page=True)


@pytest.mark.parametrize("name", TITLES)
def test_pages_fit_a_narrow_window(browser, pages, screenshots, name):
    with opened(browser, pages[name], width=420) as page:
        expect(page.get_by_role("heading", name=TITLES[name])).to_be_visible()
        assert page.evaluate("document.scrollingElement.scrollWidth <= document.scrollingElement.clientWidth")
        page.screenshot(path=screenshots / f"{name}_narrow.png", full_page=True)


def test_the_exact_threshold_of_a_row_is_chosen_with_the_keyboard(browser, studio, tmp_path):
    results = studio.results
    studio.results = [results[0], *(results[1] | {"threshold": each} for each in (0.125, 0.13, 0.4))]
    file = studio.export(tmp_path / "page.html")
    studio.results = results
    with opened(browser, file) as page:
        assert page.locator(".lab-table tbody button").all_inner_texts() == ["0.00", "0.125", "0.13", "0.40"]
        page.get_by_role("button", name="0.125").press("Enter")
        expect(page.locator(".lab-steps output")).to_have_text("λ = 0.125")
        expect(page.locator(".lab-table tr[aria-current=true]")).to_contain_text("0.125")
        expect(page.locator("figcaption", has_text="held by heat")).to_contain_text("λ = 0.125")


@pytest.mark.parametrize("threshold, said", [(0.0004321, "0.000432"), (0.00451, "0.00451"), (0.0456789, "0.0457"),
                                             (0.0625, "0.0625"), (0.3125, "0.313"), (0.09, "0.09")])  # fmt: skip
def test_a_threshold_finds_the_row_that_the_kernel_made_for_it(browser, studio, tmp_path, threshold, said):
    results, before = studio.results, studio.threshold
    near = sorted([0.0004, 0.005, 0.05, 0.3, rounded(threshold)])
    studio.results = [results[0], *(results[1] | {"threshold": each} for each in near)]
    studio.threshold = threshold
    file = studio.export(tmp_path / "page.html")
    studio.results, studio.threshold = results, before
    with opened(browser, file) as page:
        expect(page.locator(".lab-table tr[aria-current=true] button")).to_have_text(said)
        expect(page.locator(".lab-steps output")).to_have_text(f"λ = {said}")
        expect(page.locator("figcaption", has_text="in blue")).to_contain_text("held, in blue")


BROKEN = """
function render({ model, el }) {
  window.model = model;
  mount(model, el, "Broken", (model, data, body) => {
    model.on("change:step", () => (window.heard = data.name));
    if (data.bad) throw new Error("it broke");
    body.append("whole");
    return () => {};
  });
}
"""


def test_an_error_in_building_a_page_stays_in_sight(browser, tmp_path):
    """Until there is other data; and the console has it, so that it fails the tests of pages."""
    state = {"data": {"bad": 1}, "message": "working", "busy": True, "wrong": False, "progress": 0, "live": True}
    module = (HERE / SHARED).read_text(encoding="utf-8") + BROKEN
    file = tmp_path / "page.html"
    file.write_text(PAGE.format(title="", css="", module=module, state=json.dumps(state)), encoding="utf-8")
    page, told = browser.new_page(), []
    page.on("console", lambda message: told.append(message.text) if message.type == "error" else None)
    page.goto(file.as_uri())
    said = page.get_by_role("status")
    page.evaluate("model.set('message', ''), model.set('busy', false), model.set('step', 1)")
    expect(said).to_have_text("Error: it broke")
    expect(said).to_have_class("lab-message lab-wrong")
    assert any("it broke" in each for each in told)
    assert page.evaluate("window.heard") is None, "a page that was not built hears nothing"
    page.evaluate("model.set('data', { name: 'next' }), model.set('step', 2)")
    expect(page.get_by_text("whole")).to_be_visible()
    expect(said).to_be_hidden()
    assert page.evaluate("window.heard") == "next"
    page.close()
