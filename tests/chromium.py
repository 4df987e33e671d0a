"""A headless Chromium that tests look at pages with, through its DevTools protocol."""

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from contextlib import contextmanager

# All text and all elements, those inside the shadow roots of widgets too.
_DEEP = """
const deep = node => [node, ...[...node.childNodes, ...(node.shadowRoot ? [node.shadowRoot] : [])]
    .filter(child => !["STYLE", "SCRIPT"].includes(child.nodeName)).flatMap(deep)];
"""


def find():
    """Path of a Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
                None)


@contextmanager
def opened(url, folder, size=(1400, 900)):
    """A page in a fresh browser, as a `Tab`."""
    process = subprocess.Popen(
        [find(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         "--hide-scrollbars", "--no-first-run", "--disable-background-networking",
         f"--user-data-dir={folder}", f"--window-size={size[0]},{size[1]}",
         "--remote-debugging-port=0", "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        said = folder / "DevToolsActivePort"
        port = _until(lambda: said.exists() and said.read_text().split("\n")[0])
        tab = Tab(_until(lambda: _page_of(port)), size)
        tab.call("Network.enable")
        tab.call("Runtime.enable")
        tab.call("Page.navigate", url=url)
        yield tab
        tab.close()
    finally:
        process.terminate()
        process.wait(30)


class Tab:
    """What a page shows, and what it fetched."""

    def __init__(self, address, size):
        from tornado.websocket import websocket_connect

        self._loop = asyncio.new_event_loop()
        self._socket = self._loop.run_until_complete(_in(
            websocket_connect, address, max_message_size=2**28))
        self._number = itertools.count(1)
        self.requests, self.errors = [], []
        self.call("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1],
                  deviceScaleFactor=1, mobile=False)

    def call(self, method, **params):
        """One call of the protocol; its result."""
        number = next(self._number)
        self._loop.run_until_complete(_in(self._socket.write_message, json.dumps(
            {"id": number, "method": method, "params": params})))
        while True:
            said = json.loads(self._loop.run_until_complete(_in(self._socket.read_message)))
            if said.get("method") == "Network.requestWillBeSent":
                self.requests.append(said["params"]["request"]["url"])
            elif said.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(said["params"]["exceptionDetails"]))
            elif said.get("id") == number:
                return said.get("result", said)

    def evaluate(self, expression):
        """The value of a JavaScript expression; ``deep(document)`` lists all nodes."""
        result = self.call("Runtime.evaluate", returnByValue=True,
                           expression=f"(() => {{ {_DEEP} return {expression}; }})()")
        return result["result"].get("value")

    def wait_for(self, expression, seconds=60):
        """Evaluate until the value is true."""
        return _until(lambda: self.evaluate(expression), seconds)

    def text(self):
        """All that can be read on the page."""
        return self.evaluate('deep(document).filter(node => node.nodeType == 3)'
                             '.map(node => node.data).join(" ")')

    def click(self, x, y):
        """Press and release the left button."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, clickCount=1,
                      button="none" if kind == "mouseMoved" else "left")

    def screenshot(self, path):
        """Write what is seen as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self):
        """Hang up."""
        self._socket.close()
        self._loop.close()


async def _in(function, *args, **kwargs):
    return await function(*args, **kwargs)


def _page_of(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
        pages = [one for one in json.load(answer) if one["type"] == "page"]
    return pages and pages[0]["webSocketDebuggerUrl"]


def _until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError("the page did not get there")
        time.sleep(0.1)
    return value
