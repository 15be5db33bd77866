"""``python -m npnets``: train, evaluate, pretrained, cost, profile, latency, gradcheck, data, experiment, ...

Wrong input ends with one line on stderr and exit code 2; a training that diverges with 1; Ctrl-C with 130.

=============== ===============================================
``commands.py`` what each command does
``parser.py``   its options and its help
``values.py``   numbers and settings, as they are typed
=============== ===============================================
"""

import os
import sys
import warnings

from npnets.cli import parser
from npnets.cli.values import one_line


def main(arguments=None):
    """Run a command and return its exit code."""
    options = parser.build().parse_args(arguments)
    options.arguments = sys.argv[1:] if arguments is None else list(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *rest, **more: print(f"npnets: {message}", file=sys.stderr)
        try:
            return options.run(options) or 0
        except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - so that the interpreter's last flush is quiet, too
            return 0
        except (ValueError, OSError) as error:
            print(f"npnets: {one_line(error)}", file=sys.stderr)
            return 2
        except MemoryError:
            print("npnets: not enough memory; take a smaller batch, width or resolution", file=sys.stderr)
            return 2
        except FloatingPointError as error:
            print(f"npnets: training stopped: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt as interrupt:
            print(f"npnets: interrupted{one_line(interrupt)}", file=sys.stderr)
            return 130
