"""``key``: a new API key, and its entry for the file of keys."""

import argparse
import hashlib
import re
import secrets
import sys

BYTES = 32  # that nobody guesses


def add_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", type=_name, help="who it is for: a name of letters, digits, dots, dashes")
    parser.add_argument("--admin", action="store_true", help="it may load and unload models")
    parser.set_defaults(run=_key)


def _name(text: str) -> str:
    from ..api.keys import NAME

    if not re.fullmatch(NAME, text):
        raise argparse.ArgumentTypeError("wanted up to 64 letters, digits, dots, dashes and underscores")
    return text


def _key(options: argparse.Namespace) -> int:
    """The entry on stdout, to append to the file; the key itself on stderr, once."""
    key = secrets.token_urlsafe(BYTES)
    print(f'[keys."{options.name}"]\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"')
    if options.admin:
        print("admin = true")
    print(f"the key of {options.name}, which is told only now: {key}", file=sys.stderr)
    return 0
