"""The page in a real browser, with real sidecars behind it."""

import json
import time
from pathlib import Path

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.e2e.conftest import Start
from tests.support.authority import Authority, name
from tests.support.browser import PHONE, WIDE, Browser
from tests.support.processes import EmulatorProcess, wait_until

TOKEN = "sixteen-characters-and-more"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
HOSTILE = "</bdi><script>document.title='taken'</script><img src=x onerror=alert(1)>\u202e{0}${{}}"


def fits(browser: Browser, width: int) -> bool:
    browser.resize(width)
    return bool(
        browser.script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    )


def test_a_connected_sidecar_is_seen_at_a_glance(browser: Browser, start: Start) -> None:
    sidecar = start().ready()
    browser.open(sidecar.port)
    assert browser.text("name") == "Connected"
    assert "The certificate is good for another 89 days, until " in browser.text("state")
    assert "The sidecar renews it in " in browser.text("state")
    certificate = sidecar.status()["certificate"]
    for fact in ("fingerprint_sha256", "subject", "issuer", "key_algorithm", "serial_number"):
        assert certificate[fact] in browser.text("certificate")
    assert not browser.visible("notes")
    assert "imported" in browser.text("events")
    picture = browser.find("line").find_element("css selector", "svg").get_attribute("aria-label")
    assert picture.startswith("Valid from ")
    assert "Renewal is due on " in picture
    assert browser.driver.title == "Connected · compass-sidecar"


def test_without_script_the_page_says_the_same(browser: Browser, start: Start) -> None:
    sidecar = start().ready()
    browser.open(sidecar.port)
    with_script = browser.text("certificate").replace(" Copy", "").replace("\nCopy", "")
    browser.run("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(sidecar.port)
    assert browser.text("name") == "Connected"
    assert browser.text("certificate") == with_script
    assert not browser.visible("go")
    assert not browser.visible("copy-fingerprint")
    assert "To renew now, use the command below." in browser.text("act")
    assert f"curl -s -X POST http://127.0.0.1:{sidecar.port}/renew" in browser.text("commands")


def test_long_words_do_not_make_a_phone_scroll(
    browser: Browser, start: Start, emulator: EmulatorProcess
) -> None:
    browser.open(start(api_token=TOKEN).ready().port)
    emulator.fault("error-very-long")
    browser.find("go").click()
    browser.wait_for("Renewing needs the API token.", "outcome")
    browser.find("token").send_keys(TOKEN, Keys.ENTER)
    browser.wait_for("The last attempt failed", "notes")
    assert fits(browser, PHONE)
    assert fits(browser, WIDE)


def test_a_revoked_certificate_is_seen(browser: Browser, start: Start, emulator: EmulatorProcess) -> None:
    token = emulator.control("POST", "/tokens", {})["token"]
    url = emulator.endpoints["token_connector_url"]
    nothing = {"client_certificate_file": "", "client_key_file": "", "api_token": TOKEN}
    sidecar = start(**nothing, token=token, token_connector_url=url).ready()
    browser.open(sidecar.port)
    assert browser.visible("go")
    assert sidecar.client.post("/revoke", json={"confirm": sidecar.fingerprint()}, headers=BEARER).is_success
    browser.look()
    browser.wait_for("Revoked", "name")
    assert "waits for a one-time token" in browser.text("state")
    assert "Hand over a new one-time token" in browser.text("notes")
    assert not browser.visible("go")
    assert "/connect" in browser.text("commands")
    assert fits(browser, PHONE)


def test_an_unconnected_sidecar_says_what_to_do(browser: Browser, start: Start) -> None:
    sidecar = start(client_certificate_file="", client_key_file="").started()
    browser.open(sidecar.port)
    assert browser.text("name") == "Not connected"
    assert "waits for a one-time token" in browser.text("state")
    assert "Hand over a one-time token" in browser.text("notes")
    assert not browser.visible("line")
    assert not browser.visible("go")
    assert f"http://127.0.0.1:{sidecar.port}/connect" in browser.text("commands")
    assert fits(browser, PHONE)


def test_failures_are_seen_without_a_reload_with_their_reasons_and_remedies(
    browser: Browser, start: Start, emulator: EmulatorProcess
) -> None:
    sidecar = start().ready()
    browser.open(sidecar.port)
    emulator.fault("503-text")
    for _ in range(3):
        assert sidecar.client.post("/renew").status_code == 503
    browser.wait_for("Degraded", "name")
    assert "something needs a look" in browser.text("state")
    assert "Three or more attempts to renew failed in a row." in browser.text("notes")
    assert "The Connector is not available." in browser.text("notes")
    assert "does a proxy or firewall stand in the way" in browser.text("notes")
    assert "An attempt to renew failed: The Connector is not available" in browser.text("events")
    assert "Degraded" in browser.script("return document.getElementById('news').textContent")
    emulator.heal()
    assert sidecar.client.post("/renew").status_code == 200
    browser.look()
    browser.wait_for("Connected", "name")
    assert "Renewal works again" in browser.text("events")
    assert not browser.visible("notes")


def test_an_expired_certificate_is_seen_when_it_ends(browser: Browser, start: Start, tmp_path: Path) -> None:
    short = EmulatorProcess(tmp_path / "emulator", "--lifetime", "5s")
    short.stop()
    files = {"client_certificate_file", "client_key_file", "connector_url"}
    sidecar = start(**{each: short.endpoints[each] for each in files}).started()
    browser.open(sidecar.port)
    browser.wait_for("Expired", "name")
    assert "is not served any more" in browser.text("state")
    browser.wait_for("in case this machine's clock is wrong", "state")  # the first attempt has ended then
    assert "If the clock of this machine is wrong, set it" in browser.text("notes")
    assert not browser.visible("go")
    assert fits(browser, PHONE)


def test_a_renewal_by_keyboard(browser: Browser, start: Start, emulator: EmulatorProcess) -> None:
    sidecar = start().ready()
    before = sidecar.fingerprint()
    browser.open(sidecar.port)
    emulator.fault("slow@sign:2s")

    browser.script(
        "window.seen = [];"
        "const [go, busy] = ['go', 'busy'].map((id) => document.getElementById(id));"
        "new MutationObserver(() => seen.push([go.textContent, go.ariaDisabled, busy.hidden]))"
        ".observe(go, { childList: true });"
    )

    def press(key: str) -> None:
        ActionChains(browser.driver).send_keys(key).perform()

    def focused() -> str:
        return str(browser.script("return document.activeElement.id || document.activeElement.className"))

    press(Keys.TAB)
    assert focused() == "skip"
    press(Keys.TAB)
    assert focused() == "go"
    press(Keys.ENTER)
    browser.wait_for("Renewed in ", "outcome")
    assert ["Renewing … 1 s", "true", False] in browser.script("return seen")
    after = sidecar.fingerprint()
    assert after != before
    assert f"{after[:8]}… is good until " in browser.text("outcome")
    browser.wait_for(after, "certificate")
    assert focused() == "go"
    assert not browser.visible("busy")
    assert browser.find("outcome").get_attribute("role") == "status"


def test_a_renewal_that_fails_says_why_and_what_stays(
    browser: Browser, start: Start, emulator: EmulatorProcess
) -> None:
    sidecar = start().ready()
    browser.open(sidecar.port)
    emulator.fault("csr-invalid-locality*2")
    browser.find("go").click()
    browser.wait_for("The Connector refused.", "outcome")
    assert "Invalid locality provided" in browser.text("outcome")
    assert "The one in use stays, and is good until " in browser.text("outcome")
    browser.wait_for("The last attempt failed", "notes")
    assert browser.text("name") == "Connected"
    sidecar.kill()
    browser.find("go").click()
    browser.wait_for("No answer came.", "outcome")


def test_a_renewal_that_takes_long_goes_on(browser: Browser, start: Start, emulator: EmulatorProcess) -> None:
    sidecar = start().ready()
    before = sidecar.fingerprint()
    browser.open(sidecar.port)
    emulator.fault("slow@sign:1s")
    # The sidecar's own answer to whoever does not wait; a minute would be long for a test.
    browser.script(
        "const real = fetch;"
        "const wish = { Prefer: 'respond-async' };"
        "window.fetch = (to, how) => real(to, { ...how, headers: { ...how.headers, ...wish } });"
    )
    browser.find("go").click()
    browser.wait_for("It takes longer than a minute, and goes on.", "outcome")
    wait_until(lambda: sidecar.fingerprint() != before, "the renewal")
    browser.wait_for(sidecar.fingerprint(), "certificate")


def test_the_token_is_asked_for_and_kept_in_memory_alone(browser: Browser, start: Start) -> None:
    sidecar = start(api_token=TOKEN).ready()
    browser.open(sidecar.port)
    assert "$COMPASS_API_TOKEN" in browser.text("commands")
    assert not browser.visible("token")
    browser.find("go").click()
    field = browser.find("token")
    assert field.get_attribute("type") == "password"
    assert browser.script("return document.activeElement.id") == "token"
    assert browser.script("return document.getElementById('token').labels[0].textContent") == "API token"
    field.send_keys("not the token", Keys.ENTER)
    browser.wait_for("That is not the API token.", "outcome")
    field.send_keys(TOKEN, Keys.ENTER)
    browser.wait_for("Renewed in ", "outcome")
    assert field.get_attribute("value") == ""
    first = sidecar.fingerprint()
    browser.find("go").click()
    wait_until(lambda: sidecar.fingerprint() != first, "a renewal without asking again")
    kept = browser.script(
        "return [document.documentElement.outerHTML, location.href, document.cookie,"
        " JSON.stringify(localStorage), JSON.stringify(sessionStorage)].join()"
    )
    assert TOKEN not in kept


def test_a_sidecar_that_is_away_is_said_to_be(browser: Browser, start: Start) -> None:
    sidecar = start().ready()
    browser.open(sidecar.port)
    sidecar.kill()
    browser.wait_for("The sidecar cannot be reached since ", "away")
    assert browser.text("name") == "Connected"
    sidecar.start()
    sidecar.ready()
    browser.look()
    wait_until(lambda: browser.text("away") == "", "the end of the alarm")


def test_hostile_text_is_shown_as_text(browser: Browser, start: Start, tmp_path: Path) -> None:
    authority = Authority.create("<b>CA</b>")
    credential = authority.credential(subject=name("id", O=HOSTILE[:60], L="\u202etxet"))
    certificate, key, store = tmp_path / "hostile.crt", tmp_path / "hostile.key", tmp_path / "store"
    certificate.write_bytes(credential.chain.pem)
    key.write_bytes(credential.key_pem)
    store.mkdir()
    lines = [
        {"at": "2026-11-24T12:00:00Z", "event": "attempt-failed", "code": HOSTILE, "detail": HOSTILE},
        {"at": HOSTILE, "event": HOSTILE, "not_after": HOSTILE, "fingerprint": HOSTILE},
        {"at": None, "event": [HOSTILE], "announced": HOSTILE},
        {"at": "9999-12-31T23:59:59-23:59", "event": "renewed", "not_after": "9999-12-31T23:59:59-23:59"},
        {},
    ]
    (store / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sidecar = start(client_certificate_file=str(certificate), client_key_file=str(key)).ready()
    browser.open(sidecar.port)
    browser.wait_for("Connected", "name")
    assert "\\<script\\>document.title" in browser.text("certificate")
    assert "\\<b\\>CA" in browser.text("certificate")
    assert "\\u202e" in browser.text("certificate")
    assert browser.text("events").count("onerror=alert(1)") >= 4
    source = browser.driver.page_source
    assert "\u202e" not in source
    assert "<img" not in source
    assert browser.driver.title == "Connected · compass-sidecar"
    assert fits(browser, PHONE)


def test_a_hidden_page_does_not_ask(browser: Browser, start: Start) -> None:
    browser.open(start().ready().port)
    asked = "return performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/status')).length"
    wait_until(lambda: browser.script(asked) >= 1, "a look at the status")
    browser.driver.minimize_window()
    wait_until(lambda: browser.script("return document.hidden"), "the window's end")
    before = browser.script(asked)
    time.sleep(4)  # longer than from one look to the next
    assert browser.script(asked) == before
    browser.show()
    wait_until(lambda: browser.script(asked) > before, "a look as soon as it is seen again")


def test_a_fingerprint_and_a_command_are_copied(browser: Browser, start: Start) -> None:
    browser.open(start().ready().port)
    browser.run("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    for source in ("fingerprint", "curl-renew"):
        browser.find(f"copy-{source}").click()
        browser.wait_for("Copied", f"copy-{source}")
        pasted = browser.script("return navigator.clipboard.readText()")
        assert pasted == browser.text(source)


CONTRASTS = """
const luminance = (rgb) => {
  const [r, g, b] = rgb.match(/[0-9.]+/g).map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  for (; element; element = element.parentElement) {
    const color = getComputedStyle(element).backgroundColor;
    if (!color.startsWith("rgba(0, 0, 0, 0")) return color;
  }
};
return [...document.querySelectorAll("h1, h2, p, th, td, time, code, a, button, label, summary, svg text")]
  .filter((element) => element.textContent.trim())
  .map((element) => {
    const style = getComputedStyle(element);
    const color = element instanceof SVGElement ? style.fill : style.color;
    const [one, other] = [luminance(color), luminance(behind(element))].sort((a, b) => b - a);
    return [element.outerHTML.slice(0, 60), (one + 0.05) / (other + 0.05)];
  });
"""


def test_every_text_stands_out_from_its_ground(
    browser: Browser, start: Start, emulator: EmulatorProcess
) -> None:
    browser.open(start().ready().port)
    emulator.fault("503-text@configuration")
    browser.find("go").click()
    browser.wait_for("The Connector is not available.", "outcome")
    for scheme, ground in {"light": "rgb(252, 252, 251)", "dark": "rgb(15, 19, 24)"}.items():
        browser.prefer(scheme=scheme)
        assert browser.script("return getComputedStyle(document.body).backgroundColor") == ground
        found = browser.script(CONTRASTS)
        assert len(found) > 40
        assert [each for each in found if each[1] < 4.5] == []


def test_nothing_moves_for_who_does_not_want_it(browser: Browser, start: Start) -> None:
    browser.open(start().ready().port)
    moving = "return getComputedStyle(document.getElementById('busy'), '::before').animationName"
    assert browser.script(moving) == "go"
    browser.prefer(motion="reduce")
    assert browser.script(moving) == "none"
