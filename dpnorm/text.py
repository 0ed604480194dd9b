"""Text that came from elsewhere, made safe to print."""


def one_line(text: str) -> str:
    r"""Writes control characters as escapes, so that a name cannot break a line or a terminal.

    >>> one_line("a\nb")
    'a\\nb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
