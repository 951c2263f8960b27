"""Opens pages in a headless Chromium and asks it things, over its DevTools protocol. Needs Chromium on the PATH."""

import asyncio
import base64
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")
START_S = 30.0
_QUIET = ("--headless", "--no-sandbox", "--no-first-run", "--hide-scrollbars", "--remote-debugging-port=0")


def find_chromium() -> str | None:
    """Return the path of a Chromium; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """A page that is open."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._number = socket, 0
        self.problems: list[str] = []
        """Errors that the page's scripts have thrown."""

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        async for message in self._socket:
            answer = message.json()
            if answer.get("method") == "Runtime.exceptionThrown":
                self.problems.append(answer["params"]["exceptionDetails"]["exception"].get("description", "unknown"))
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(answer["error"]["message"])
                return answer["result"]
        raise RuntimeError("Chromium has closed the page.")

    async def ask(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"].get("description", "an exception"))
        return found["result"].get("value")

    async def wait_for(self, expression: str, limit_s: float = 30.0) -> Any:
        """Return the value of an expression once it is true. Raises TimeoutError."""
        async with asyncio.timeout(limit_s):
            while not (value := await self.ask(expression)):
                await asyncio.sleep(0.02)
        return value

    async def press(self, key: str) -> None:
        """Press and release a key."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        codes = {"Enter": 13, " ": 32, "Tab": 9, "ArrowRight": 39, "ArrowLeft": 37}
        common = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": codes[key]}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    async def screenshot(self, file: Path) -> None:
        """Write what is seen as a PNG."""
        shot = await self.call("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(shot["data"]))


def visit(
    page: Path, work: Callable[[Tab], Awaitable[None]], *, width: int = 1200, height: int = 900, dark: bool = False
) -> None:
    """Open a page in a window of that size and let `work` do something with it."""
    asyncio.run(_visit(page, work, width, height, dark))


async def _visit(page: Path, work: Callable[[Tab], Awaitable[None]], width: int, height: int, dark: bool) -> None:
    program = find_chromium()
    if program is None:
        raise RuntimeError(f"Chromium must be on the PATH, as one of {', '.join(NAMES)}.")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = await asyncio.create_subprocess_exec(
            program,
            *_QUIET,
            f"--user-data-dir={folder}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            port = await _port(Path(folder))
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                    (target,) = [item for item in await response.json() if item["type"] == "page"]
                async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    tab = Tab(socket)
                    await tab.call("Runtime.enable")
                    await tab.call(
                        "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
                    )
                    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
                    await tab.call("Emulation.setEmulatedMedia", features=[scheme])
                    await tab.call("Page.navigate", url=page.resolve().as_uri())
                    await work(tab)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _port(folder: Path) -> int:
    file = folder / "DevToolsActivePort"
    async with asyncio.timeout(START_S):
        while not (file.exists() and (lines := file.read_text().splitlines())):
            await asyncio.sleep(0.05)
    return int(lines[0])
