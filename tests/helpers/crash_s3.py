"""An object store of this machine for sweeps that are killed: moto's server, behind a door that can be shut at any moment.

python tests/helpers/crash_s3.py DOOR SERVER   # the door alone: passes what comes at one port on to another

moto keeps everything in its memory, so it is not killed itself. A killed door is what a client sees of a storage that is away: requests that
are under way break off, and nobody answers new ones.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
BUCKET = "bucket"


class ObjectStore:
    """A running server with an empty bucket, and its door. Its access keys are put into the environment."""

    def __init__(self) -> None:
        os.environ.update(KEYS)
        self._door_port, port = _free_ports(2)
        arguments = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
        self._server = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._inner_port = port
        self._door: subprocess.Popen | None = None
        _wait_for(port)
        _make_bucket(port)
        self.open()
        self.uri = f"s3://{BUCKET}/kills?endpoint_override=http://127.0.0.1:{self._door_port}&region=us-east-1"

    def open(self) -> None:
        """Let the storage be there again."""
        arguments = [sys.executable, "-S", __file__, str(self._door_port), str(self._inner_port)]
        self._door = self._door or subprocess.Popen(arguments)
        _wait_for(self._door_port)

    def shut(self) -> None:
        """Let the storage be away."""
        if self._door is not None:
            self._door.send_signal(signal.SIGKILL)
            self._door.wait()
            self._door = None

    def stop(self) -> None:
        self.shut()
        self._server.kill()
        self._server.wait()


def _make_bucket(port: int) -> None:
    """With a plain request: a process that forks must not have used S3's library before."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("PUT", f"/{BUCKET}")
    assert connection.getresponse().status == 200


def _free_ports(number: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _wait_for(port: int) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < end, f"nobody answers at port {port}"
            time.sleep(0.05)
        else:
            return


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _serve(door: int, server: int) -> None:
    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server)
        except OSError:  # the server is still starting
            writer.close()
            return
        await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))

    await (await asyncio.start_server(pass_on, "127.0.0.1", door)).serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
