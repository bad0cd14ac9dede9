"""The command `uphill`."""

import signal
import sys

from . import _uphill


def main() -> int:
    # The command has handlers of its own, and Python is not there to run its.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _uphill.command(["uphill", *sys.argv[1:]])
