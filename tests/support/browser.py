"""Debian's Chromium, driven by Selenium: a page as people see it."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.support.processes import wait_until

_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--no-proxy-server",
    "--hide-scrollbars",
)
WIDE, PHONE = 1100, 360


class Browser:
    """One window. `profile` is an empty folder."""

    def __init__(self, profile: Path) -> None:
        options = ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        options._ignore_local_proxy = True  # the driver is on this machine; the public way warns
        for argument in (*_ARGUMENTS, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = Chrome(options, Service(shutil.which("chromedriver")))

    def quit(self) -> None:
        self.driver.quit()

    # --- how it looks out of the window

    def reset(self) -> None:
        self.driver.get("about:blank")
        self.show()
        self.run("Emulation.setScriptExecutionDisabled", value=False)
        self.prefer(scheme="light", motion="no-preference")
        self.resize(WIDE)
        self.driver.get_log("browser")

    def show(self) -> None:
        """After `driver.minimize_window()`."""
        self.driver.set_window_rect(0, 0, WIDE, 900)

    def run(self, command: str, **arguments: object) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(command, arguments)

    def prefer(self, *, scheme: str = "light", motion: str = "no-preference") -> None:
        wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
        features = [{"name": name, "value": value} for name, value in wanted.items()]
        self.run("Emulation.setEmulatedMedia", features=features)

    def resize(self, width: int, height: int = 900) -> None:
        self.run(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def picture(self, path: Path, *, width: int = WIDE) -> None:
        """The whole page as PNG."""
        self.resize(width)
        self.resize(width, self.script("return document.documentElement.scrollHeight"))
        self.driver.save_screenshot(str(path))
        self.resize(width)

    # --- what is there

    def open(self, port: int, path: str = "/") -> None:
        self.driver.get(f"http://127.0.0.1:{port}{path}")

    def script(self, text: str, *arguments: object) -> Any:
        return self.driver.execute_script(text, *arguments)

    def look(self) -> None:
        """Have the page refresh itself now, instead of in a few seconds."""
        self.script("turn()")

    def find(self, name: str) -> WebElement:
        """The element with this id."""
        return self.driver.find_element(By.ID, name)

    def text(self, name: str = "main") -> str:
        return self.find(name).text

    def visible(self, name: str) -> bool:
        return self.find(name).is_displayed()

    def wait_for(self, text: str, name: str = "main") -> None:
        """Until the element says this, without a reload."""

        def says() -> bool:
            with suppress(StaleElementReferenceException):
                return text in self.text(name)
            return False

        try:
            wait_until(says, f"{text!r} in #{name}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it says: {self.text(name)}") from None

    def violations(self) -> list[str]:
        """What the console complains of, but for answers that were a 4xx or 5xx, or did not come."""
        entries = self.driver.get_log("browser")
        return [each["message"] for each in entries if each["source"] != "network"]
