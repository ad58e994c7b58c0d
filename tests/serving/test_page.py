"""The server's own page where people meet it: a headless Chromium, as a laptop and as a phone, light and dark.

Needs Debian's `chromium` (or another one, named by the environment variable CHROMIUM); without it the tests are skipped
and say so. Screenshots are left in pytest's temporary folder, or in the one that SCREENSHOTS names.
"""

from __future__ import annotations

import pandas as pd
import pytest
from headless import complaints, needs_chromium

serving = pytest.importorskip("sasrec_utils.serving", reason="the extra `serve` is not installed")

pytestmark = needs_chromium


class Page:
    """The page in a window of its own, and what happened in it."""

    def __init__(self, browser, url: str, width: int, height: int, colours: str = "light", phone: bool = False):
        self.page = browser.new_page(
            viewport={"width": width, "height": height}, color_scheme=colours, has_touch=phone, is_mobile=phone
        )
        self.page.set_default_timeout(20_000)
        self.errors, self.asked, self.url = [], [], url
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)

    def names(self, where: str) -> list[str]:
        """The titles in a list."""
        titles = "rows => rows.map(row => row.firstChild.textContent)"
        return self.page.locator(f"#{where} .name").evaluate_all(titles)

    def wait(self, condition: str, given=None) -> None:
        self.page.wait_for_function(condition, arg=given)

    def next_is(self, titles: list[str]) -> None:
        """Wait until these are what comes next."""
        self.wait(
            """titles => JSON.stringify([...document.querySelectorAll('#next .name')].map(e => e.firstChild.textContent))
                === JSON.stringify(titles)""",
            titles,
        )

    def fits(self) -> bool:
        """Nothing stands out to the right, and what is to be touched is large enough for a finger."""
        return self.page.evaluate(
            """() => document.documentElement.scrollWidth <= innerWidth &&
                [...document.querySelectorAll('button, input:not([type=range]), textarea')]
                    .filter(e => e.checkVisibility())
                    .every(e => { const r = e.getBoundingClientRect(); return r.width >= 44 && r.height >= 44 })"""
        )

    def fine(self) -> None:
        """No error, nobody else was asked, nobody is shut out."""
        assert self.fits() and complaints(self.page) == []
        assert self.errors == [] and all(url.startswith((self.url, "data:")) for url in self.asked)


def titles(recommender, tracks: list[str], k: int = 10) -> list[str]:
    return recommender.recommend(tracks, k).table["track_name"].tolist()


def test_search_add_and_see_what_comes_next(chromium, server, recommender, screenshots):
    names = recommender.table([5, 9])
    uris = names["track_uri"].tolist()
    here = Page(chromium, server.url, 1280, 800)
    page = here.page
    here.next_is(titles(recommender, []))  # the most played, where one can begin

    # search with the keyboard, take what is offered
    page.get_by_label("Add a track").press_sequentially(names["track_name"][0], delay=5)
    page.locator("[role=option]").first.wait_for()
    here.wait(
        "name => document.querySelector('[role=option][aria-selected=true]')?.innerText.startsWith(name)",
        names["track_name"][0],
    )
    page.screenshot(path=screenshots / "page-search.png")
    page.keyboard.press("Enter")
    here.next_is(titles(recommender, uris[:1]))
    assert here.names("playlist") == [names["track_name"][0]]

    # take what comes next, and what comes after that; remove it again
    second = recommender.recommend(uris[:1]).table["track_uri"][0]
    page.locator("#next button").first.click()
    here.next_is(titles(recommender, [uris[0], second]))
    page.screenshot(path=screenshots / "page-laptop.png")
    shares = [float(text.split()[0]) for text in page.locator("#next .share").all_inner_texts()]
    assert len(shares) == 10 and shares == sorted(shares, reverse=True)
    page.locator("#playlist button").last.click()
    here.next_is(titles(recommender, uris[:1]))

    # a word that is in no name; a playlist of one's own
    page.get_by_label("Add a track").fill("zzzzqqqq")
    page.get_by_text("No track is called").wait_for()
    page.get_by_text("Paste a playlist").click()
    label = recommender.names.label(7)
    page.get_by_label("Lines").fill(f"{recommender.names.label(3)}\n{uris[1]}\n{label[:-1]}zz")
    page.get_by_role("button", name="Read it").click()
    page.get_by_text("2 of 3 tracks recognised.").wait_for()
    third = recommender.table([3])["track_uri"][0]
    here.next_is(titles(recommender, [third, uris[1]]))
    page.locator("#missing button").first.click()
    here.wait("() => document.querySelectorAll('#playlist li').length === 3")
    page.screenshot(path=screenshots / "page-pasted.png", full_page=True)
    here.fine()


def test_on_a_phone_and_in_the_dark(chromium, server, recommender, screenshots):
    for colours in ("light", "dark"):
        here = Page(chromium, server.url, 390, 844, colours, phone=True)
        page = here.page
        here.next_is(titles(recommender, []))
        for _ in range(3):
            before = here.names("next")
            page.locator("#next button").first.tap()
            here.wait("b => document.querySelector('#next .name').firstChild.textContent !== b", before[0])
        page.screenshot(path=screenshots / f"page-phone-{colours}.png", full_page=True)
        page.locator("#surprise").fill("1")
        here.wait("() => document.querySelector('#surprise').getAttribute('aria-valuetext') === '1'")
        here.fine()
        page.close()
    dark = Page(chromium, server.url, 1280, 800, "dark")
    dark.next_is(titles(recommender, []))
    dark.page.screenshot(path=screenshots / "page-laptop-dark.png")
    dark.fine()
    dark.page.close()


def test_names_of_others_are_text_and_a_server_that_is_gone_is_told(chromium, copy):
    path = copy / "models" / "default" / "tracks.parquet"
    tracks = pd.read_parquet(path)
    evil = "<img src=x onerror=document.title='broken'>"
    tracks["track_name"] = [evil if i % 2 else None for i in range(len(tracks))]
    tracks.to_parquet(path)
    token = "a-token-of-this-test"
    with serving.running_server(copy, token=token) as guarded:
        here = Page(chromium, guarded.url, 390, 844)
        page = here.page
        page.get_by_label("This server wants a token").fill(token)
        page.get_by_role("button", name="Use it").click()
        page.locator("#next li").nth(9).wait_for()
        assert evil in here.names("next") and page.title() == "What comes next?"
        assert page.locator("#gate").is_hidden()
        guarded.stop()
        page.locator("#next button").first.click()
        page.get_by_text("The server cannot be reached.").wait_for()
