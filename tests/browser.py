"""Debian's Chromium without a screen, driven through its DevTools protocol on a pipe."""

import base64
import json
import os
import shutil
import subprocess
import time

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


class Browser:
    """A page, and everything that it logs and asks for."""

    def __init__(self, folder):
        inbox, theirs = os.pipe()  # what it writes, on its file descriptor 4
        ours, outbox = os.pipe()  # what it reads, on 3

        def connect():
            os.dup2(ours, 1003)  # first out of the way: either may be 3 or 4 already
            os.dup2(theirs, 1004)
            os.dup2(1003, 3)
            os.dup2(1004, 4)

        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
        self.process = subprocess.Popen(
            [CHROMIUM, *flags, "--window-size=1200,900", f"--user-data-dir={folder}", "about:blank"],
            preexec_fn=connect,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours)
        os.close(theirs)
        self.inbox, self.outbox = inbox, outbox
        self.rest, self.calls, self.events, self.session = b"", 0, [], None
        target = next(info for info in self.call("Target.getTargets")["targetInfos"] if info["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.terminate()
        self.process.wait(10)
        os.close(self.inbox)
        os.close(self.outbox)

    def receive(self):
        while b"\0" not in self.rest:
            part = os.read(self.inbox, 65536)
            assert part, "Chromium has gone"
            self.rest += part
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **params):
        """Send a command, and wait for its answer; events that come first are kept."""
        self.calls += 1
        message = {"id": self.calls, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.outbox, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.calls:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, path):
        self.call("Page.navigate", url=path.as_uri())
        deadline = time.monotonic() + 30
        while self.run("document.readyState") != "complete" or self.run("location.protocol") != "file:":
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def run(self, script):
        """The value of an expression on the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def point(self, x, y):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path, **options):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **options)["data"]))

    def of(self, *methods):
        """The events of some kinds that have come."""
        self.run("0")  # whatever came before it has been read
        return [event["params"] for event in self.events if event["method"] in methods]

    @property
    def complaints(self):
        """Console messages, log entries such as refused requests, and exceptions."""
        return self.of("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")

    @property
    def addresses(self):
        """All that the page asked for, but for itself and what it holds."""
        asked = [event["request"]["url"] for event in self.of("Network.requestWillBeSent")]
        return [url for url in asked if not url.startswith(("data:", "file:"))]
