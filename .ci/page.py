#!/usr/bin/env python3
"""Opens pages of `flawtune report` in headless Chromium and fails on any request that leaves the page, any console message
and anything that is wider than the window; with light and dark colours, without JavaScript, and printed.

    page.py CHROMIUM PAGE.html [OUTPUT_DIR]

Standard library only: Chromium's DevTools protocol over a pipe. With OUTPUT_DIR screenshots and a PDF are kept there.
"""

import base64
import json
import os
import pathlib
import select
import subprocess
import sys
import tempfile
import time

SECONDS = 120


class Browser:
    """Chromium, spoken to through file descriptors 3 and 4; messages end with a zero byte."""

    def __init__(self, program):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_child, self.write = os.pipe()
        self.read, from_child = os.pipe()

        def descriptors():
            # via high numbers: either pipe may have 3 or 4 itself
            high = [os.dup2(to_child, 63), os.dup2(from_child, 64)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
            "--remote-debugging-pipe", f"--user-data-dir={self.profile.name}", "about:blank",
        ]
        self.process = subprocess.Popen(
            [program, *flags], close_fds=False, preexec_fn=descriptors,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_child)
        os.close(from_child)
        self.buffer, self.number, self.events = b"", 0, []
        self.end = time.monotonic() + SECONDS
        self.session = None

    def message(self):
        while b"\0" not in self.buffer:
            left = self.end - time.monotonic()
            if left <= 0 or not select.select([self.read], [], [], left)[0]:
                raise TimeoutError(f"no answer from the browser in {SECONDS} s")
            part = os.read(self.read, 1 << 16)
            if not part:
                raise EOFError("the browser ended")
            self.buffer += part
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, **params):
        self.number += 1
        request = {"id": self.number, "method": method, "params": params}
        if self.session:
            request["sessionId"] = self.session
        os.write(self.write, json.dumps(request).encode() + b"\0")
        while True:
            message = self.message()
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self.events.append(message)

    def wait(self, event):
        while not any(e.get("method") == event for e in self.events):
            self.events.append(self.message())

    def close(self):
        self.process.kill()
        self.process.wait()


def problems(events, page):
    """What must not happen: requests for anything but the page and data in it, console messages, exceptions."""
    found = []
    for event in events:
        method, params = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if url != page and not url.startswith("data:"):
                found.append(f"request for {url[:200]}")
        elif method == "Runtime.consoleAPICalled":
            found.append(f"console.{params['type']}: {params['args'][:1]}")
        elif method == "Runtime.exceptionThrown":
            found.append(f"exception: {params['exceptionDetails'].get('text')}")
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("warning", "error"):
            found.append(f"{params['entry']['level']}: {params['entry']['text'][:300]}")
    return found


def look(program, page, output, script, scheme, width):
    """Opens the page once; returns what is wrong with it."""
    name = f"{scheme}-{width}{'' if script else '-no-script'}"
    browser = Browser(program)
    try:
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        browser.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Network", "Page", "Runtime", "Log"):
            browser.call(f"{domain}.enable")
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser.call("Emulation.setScriptExecutionDisabled", value=not script)
        browser.events.clear()
        browser.call("Page.navigate", url=page)
        browser.wait("Page.loadEventFired")
        found = []
        # the protocol's own evaluation also works on a page without scripts
        browser.call("Emulation.setScriptExecutionDisabled", value=False)

        def value(text):
            return browser.call("Runtime.evaluate", expression=text, returnByValue=True)["result"].get("value")

        wide = value("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if wide:
            found.append(f"the page is {wide} pixels wider than its window of {width}")
        if not value("document.querySelectorAll('h2').length > 1 && document.querySelectorAll('td').length > 3"):
            found.append("headings or tables are missing")
        broken = value("[...document.images].filter(i => !i.complete || !i.naturalWidth).length")
        if broken:
            found.append(f"{broken} images of the page cannot be drawn")
        buttons = value("document.querySelectorAll('th button').length")
        if bool(buttons) != script:
            found.append(f"{buttons} sort buttons {'with' if script else 'without'} JavaScript")
        if output:
            height = min(int(value("document.documentElement.scrollHeight")), 12000)
            shot = browser.call("Page.captureScreenshot", captureBeyondViewport=True,
                                clip={"x": 0, "y": 0, "width": width, "height": height, "scale": 1})
            (output / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))
            if script and scheme == "dark":
                pdf = browser.call("Page.printToPDF", printBackground=False)
                (output / "print.pdf").write_bytes(base64.b64decode(pdf["data"]))
        if script:
            # a click sorts, a second one the other way round
            order = """(() => {
                const t = [...document.querySelectorAll('table.sortable')].find(t => t.tBodies[0].rows.length > 1);
                if (!t) return true;
                const read = () => [...t.tBodies[0].rows].map(r => r.cells[0].textContent);
                const b = t.querySelector('th button');
                b.click(); const up = read(); b.click(); const down = read();
                const sorted = [...up].sort((a, b) => a < b ? -1 : a > b ? 1 : 0);
                return up.join() === sorted.join() && down[0] === sorted[sorted.length - 1];
            })()"""
            if not value(order):
                found.append("a click on a column's head does not sort the table")
        return [f"{name}: {what}" for what in found + problems(browser.events, page)]
    finally:
        browser.close()


def main():
    program, page = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
    output = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else None
    if output:
        output.mkdir(parents=True, exist_ok=True)

    # the check itself: a page that does what must not be done is found out
    with tempfile.TemporaryDirectory() as folder:
        bad = pathlib.Path(folder) / "bad.html"
        bad.write_text("<!DOCTYPE html><img src='https://example.invalid/x.png'><script>console.error('x')</script>")
        found = look(program, bad.as_uri(), None, True, "light", 1280)
        for part in ("example.invalid", "console.error", "headings or tables are missing"):
            if not any(part in what for what in found):
                sys.exit(f"the browser check is blind: it does not see {part}")

    found = []
    for script, scheme, width in ((True, "light", 1280), (True, "dark", 1280), (False, "light", 1280), (True, "light", 390)):
        found += look(program, page.as_uri(), output, script, scheme, width)
    for what in found:
        print(f"{page.name}: {what}", file=sys.stderr)
    if found:
        sys.exit(1)
    print(f"{page.name}: no request, no console message, light, dark, narrow and without JavaScript")


if __name__ == "__main__":
    main()
