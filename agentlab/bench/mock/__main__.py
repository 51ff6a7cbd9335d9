"""`python -m agentlab.bench.mock --port 0` prints its address and serves until it is interrupted."""

import argparse
import asyncio
import contextlib
import os
import sys

from agentlab.bench.mock.server import MockServer


async def _serve(server: MockServer, *, until_eof: bool) -> None:
    async with server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        if until_eof:
            await asyncio.to_thread(sys.stdin.read)
        else:
            await asyncio.Event().wait()


def main() -> None:
    """Read the flags and serve."""
    parser = argparse.ArgumentParser(prog="python -m agentlab.bench.mock", description="Scripted mock language models.")
    parser.add_argument("--port", type=int, default=0, help="0 picks any free port on 127.0.0.1")
    parser.add_argument("--seed", type=int, default=0, help="seed for injected faults, as in the script faults20")
    parser.add_argument("--core", type=int, help="run on this core only")
    parser.add_argument("--until-eof", action="store_true", help="exit when standard input is closed")
    flags = parser.parse_args()
    if flags.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {flags.core})
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(MockServer(seed=flags.seed, port=flags.port), until_eof=flags.until_eof))


if __name__ == "__main__":
    main()
