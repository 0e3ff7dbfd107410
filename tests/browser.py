"""Headless Chromium, driven by the DevTools protocol over a pipe."""

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
    """A page, with the messages that it logs and the requests that it sends."""

    def __init__(self, folder):
        inbox, theirs = os.pipe()  # Chromium writes to its file descriptor 4
        ours, outbox = os.pipe()  # and reads from 3

        def connect():
            os.dup2(ours, 1003)  # first moved away: either may be 3 or 4 already
            os.dup2(theirs, 1004)
            os.dup2(1003, 3)
            os.dup2(1004, 4)

        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
        flags += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]  # other machines are out of reach
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
            assert part, "Chromium has exited"
            self.rest += part
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **params):
        """Send a command and return its result; events that arrive first are stored."""
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

    def open(self, page):
        """Open a file, or a URL without a fragment, and wait until it is loaded."""
        url = page if isinstance(page, str) else page.as_uri()
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + 120
        while self.run("document.readyState") != "complete" or self.run("location.href") != url:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def run(self, script):
        """Return the value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def point(self, x, y):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path, **options):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **options)["data"]))

    def of(self, *methods):
        """Return the received events of some kinds."""
        self.run("0")  # receives all earlier events
        return [event["params"] for event in self.events if event["method"] in methods]

    @property
    def messages(self):
        """Return console messages, log entries such as blocked requests, and exceptions."""
        return self.of("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")

    @property
    def requests(self):
        """Return the URLs of all requests, except for files and data URLs."""
        urls = [event["request"]["url"] for event in self.of("Network.requestWillBeSent")]
        return [url for url in urls if not url.startswith(("data:", "file:"))]
