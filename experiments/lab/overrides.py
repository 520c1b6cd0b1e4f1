"""Options as words of the command line, in Hydra's grammar, which reads more than text into many a text."""

import re
import shlex
from typing import Any

_BARE = re.compile(r"[A-Za-z_/@][A-Za-z0-9_@/.+-]*")
_MEANT = ("null", "true", "false", "inf", "nan")


def override(name: str, value: Any) -> str:
    """The word that sets an option to a value, whatever signs are in it; "???" alone Hydra cannot say."""
    return f"{name}={_spelled(value)}"


def command(*words: str) -> str:
    """Words as they are typed in a shell."""
    return shlex.join(["python", "-m", "experiments", *words])


def _spelled(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_spelled, value))}]"
    if not isinstance(value, str):
        return "null" if value is None else str(value)
    if _BARE.fullmatch(value) and value.lower() not in _MEANT:
        return value
    # OmegaConf halves the backslashes before "${", Hydra those before a quote and before the end.
    text = re.sub(r"(\\*)\$\{", lambda found: rf"{found[1] * 2}\${{", value)
    text = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + (r"\"" if found[2] else ""), text)
    return f'"{text}"'
