"""The registry of rules."""

from dataclasses import dataclass

from dpnorm.errors import unknown_name


@dataclass(frozen=True)
class Rule:
    """One code: its page as `dpnorm rule CODE` prints it.

    Attributes:
        code: such as DPN101.
        title: a line.
        why: why it breaks the guarantee, or may.
        example: a minimal example, as code.
        remedy: what to do.
        source: where to read more.
    """

    code: str
    title: str
    why: str
    example: str
    remedy: str
    source: str

    def page(self) -> str:
        """The rule's page as Markdown."""
        return (
            f"# {self.code}: {self.title}\n\n{self.why}\n\n"
            f"## Example\n\n```python\n{self.example.strip()}\n```\n\n"
            f"## What to do\n\n{self.remedy}\n\n## Source\n\n{self.source}\n"
        )


_RULES: dict[str, Rule] = {}


def register(entry: Rule) -> Rule:
    """Enters a rule into the registry."""
    _RULES[entry.code] = entry
    return entry


def rules() -> dict[str, Rule]:
    """Every rule by code, in ascending order."""
    return dict(sorted(_RULES.items()))


def rule(code: str) -> Rule:
    """The rule of a code.

    Raises:
        InputError: there is no such rule.
    """
    if code not in _RULES:
        raise unknown_name("rule", code, rules())
    return _RULES[code]
