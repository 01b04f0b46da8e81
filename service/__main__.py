"""``python -m service`` in a checkout, ``python -m albert_serve`` where it is installed."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
