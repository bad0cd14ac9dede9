"""Entry point of the `uphill` command."""

import signal
import sys

from . import _uphill


def main() -> int:
    # The command installs its own handlers. Python's would never run, as the interpreter waits for the command.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _uphill.command(["uphill", *sys.argv[1:]])
