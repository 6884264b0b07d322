"""The pages' modules of docs/migrate/ in a real browser: a session moves, and the client goes on with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from playwright.sync_api import Page, expect

from tests.guides.backend import Files
from tests.guides.provider import Provider, provider
from tests.guides.sites import oauth2_proxy_site, supertokens_site
from tests.guides.supertokens import SuperTokens, supertokens
from tests.guides.terminal import ROOT, Terminal, steps
from tests.web.conftest import Visit

pytestmark = pytest.mark.timeout(240)  # pages start several servers, on a machine that may be busy

CLIENT = ROOT / "clients" / "javascript" / "src"
SHOW = """<title>a page</title><p role="status"></p><script type="module">
const { client } = await import("/app/begin.js");
const answer = await client.fetch("/api/hello");
const via = (await answer.json()).via ?? "nothing";
document.querySelector("p").textContent = `${client.signedIn} ${answer.status} ${via}`;
addEventListener("click", () => client.logout().then(() => location.reload()));
</script>"""


def page_files(guide: str, modules: Mapping[str, str]) -> Files:
    """Return a page with the module of a guide, the client, and stand-ins for other modules that it imports."""
    (begin,) = (step.text for step in steps(guide) if step.title == "begin.js")
    files = {"/app/": SHOW, "/favicon.ico": ""}
    files |= {f"/app/client/{path.name}": path.read_text() for path in CLIENT.glob("*.js")}
    for number, (name, text) in enumerate(modules.items()):
        files[f"/app/{number}.js"] = text
        begin = begin.replace(f'"{name}"', f'"/app/{number}.js"')
    return files | {"/app/begin.js": begin.replace('"tokengate"', '"/app/client/index.js"')}


@pytest.fixture(scope="module")
def idp() -> Iterator[Provider]:
    with provider() as made:
        yield made


@pytest.fixture(scope="module")
def core() -> Iterator[SuperTokens]:
    session = "export default { attemptRefreshingSession: async () => true };"
    begin = "export const initSuperTokens = () => {};"
    modules = {"supertokens-web-js/recipe/session": session, "./supertokens.js": begin}
    with supertokens() as made:
        made.files |= page_files("docs/migrate/supertokens.md", modules)
        yield made


@pytest.fixture(scope="module")
def beside_oauth2_proxy(idp: Provider) -> Iterator[Terminal]:
    files = page_files("docs/migrate/oauth2-proxy.md", {})
    with oauth2_proxy_site(idp, "stand-in", files) as running:
        yield running


@pytest.fixture(scope="module")
def beside_supertokens(core: SuperTokens) -> Iterator[Terminal]:
    with supertokens_site(core) as running:
        yield running


def told(page: Page, text: str) -> None:
    expect(page.get_by_role("status")).to_have_text(text)


def test_a_page_moves_the_session_of_oauth2_proxy_and_goes_on_after_a_reload(
    visitor: Visit, beside_oauth2_proxy: Terminal
) -> None:
    context = visitor()
    page = context.new_page()
    page.goto(beside_oauth2_proxy.here("http://127.0.0.1:8000/oauth2/start?rd=/app/"))
    told(page, "true 200 1.1 tokengate")
    page.reload()
    told(page, "true 200 1.1 tokengate")


def test_a_page_moves_the_session_of_supertokens_and_signs_it_out(
    visitor: Visit, beside_supertokens: Terminal, core: SuperTokens
) -> None:
    context = visitor()
    url = beside_supertokens.here("http://127.0.0.1:8000")
    context.add_cookies([{"name": "sAccessToken", "value": core.token(), "url": url}])
    page = context.new_page()
    page.goto(f"{url}/app/")
    told(page, "true 200 1.1 tokengate")
    context.clear_cookies(name="sAccessToken")
    page.reload()
    told(page, "true 200 1.1 tokengate")
    page.get_by_role("status").click()
    told(page, "false 200 nothing")  # the application's own side, without a session
