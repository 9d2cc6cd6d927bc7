"""Runs ministack on a free port of loopback, for as long as somebody holds our standard input open.

Prints the port on the first line of standard output. Its parent holds the other end of the pipe, which closes however
the parent ends: so no emulator outlives the tests, and none is looked for by name.
"""

import asyncio
import os
import signal
import socket
import sys
import threading


def leash():
    while sys.stdin.buffer.read1(4096):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def main():
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    port = listener.getsockname()[1]

    os.environ.update(
        BIND_HOST="127.0.0.1",
        MINISTACK_HOST="127.0.0.1",
        GATEWAY_PORT=str(port),
        LOG_LEVEL="ERROR",
        # Listeners of their own, on ports of their own, which nobody asked for.
        IOT_MTLS_ENABLED="0",
        SFTP_ENABLED="0",
        # Nothing but this process is to be run.
        DOCKER_HOST="unix:///nowhere",
    )
    threading.Thread(target=leash, daemon=True).start()

    from hypercorn.asyncio import serve
    from hypercorn.config import Config
    from ministack.app import app

    config = Config()
    # The socket itself and not its number: nobody can take the port in between.
    config.bind = [f"fd://{listener.fileno()}"]
    config.keep_alive_timeout = 75
    config.loglevel = "ERROR"
    # Connections wait in the listener's queue until the application is there.
    print(port, flush=True)
    asyncio.run(serve(app, config))


main()
