"""Entry point of ``pclc``; says what to install where the [lab] extra is missing.

So nothing but the standard library is imported before that is known.
"""

import sys
from importlib.util import find_spec

_EXTRA = ("PIL", "jinja2", "rich", "safetensors", "sklearn", "tyro")


def main() -> int:
    """Run the command line of this process and return its exit code."""
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        print(
            f'pclc: {", ".join(missing)} not installed: pip install "pclc-fast[lab]"',
            file=sys.stderr,
        )
        return 1
    from .cli import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
