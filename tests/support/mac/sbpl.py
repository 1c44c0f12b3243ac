"""Reads SBPL, the language of sandbox-exec's profiles: refuses what macOS would refuse, and says what a profile allows.

Apple documents neither syntax nor names. The names are those of profiles in WebKit, Chromium, Bazel and Codex, and only
such as this project uses; semantics: the last rule that matches decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

Form = "str | Text | list[Form]"


class Invalid(Exception):
    """What sandbox-exec would print, more or less."""


class Text(str):
    """A string literal, as against a symbol."""


_WRITES = ("create", "data", "unlink", "mode", "owner", "flags", "times", "xattr", "acl", "setugid")
PATHS = (
    "file-write*",
    *(f"file-write-{kind}" for kind in _WRITES),
    "file-link",
    "file-mount",
    "file-read*",
    "file-read-data",
    "file-read-metadata",
)
OTHERS = (
    *("network*", "network-outbound", "network-inbound", "network-bind", "signal", "mach-lookup", "process-exec"),
    *("ipc-sysv*", "ipc-posix-shm-write-create", "process-info*"),
    *("job-creation", "lsopen", "appleevent-send", "user-preference-write", "default"),
)
_TARGETS = ("self", "others", "same-sandbox", "children", "pgrp")


@dataclass
class Rule:
    """One operation, allowed or not where `matches` says so of a path or a signal's target."""

    allow: bool
    operation: str
    matches: Callable[[str], bool]

    def covers(self, operation: str) -> bool:
        own = self.operation
        return own in ("default", operation) or (own.endswith("*") and operation.startswith(own[:-1]))


@dataclass
class Profile:
    """A valid profile. paths: all that its filters name."""

    rules: list[Rule] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def allows(self, operation: str, about: str = "") -> bool:
        """Whether `operation` on a path, or a signal to a target, is allowed."""
        verdicts = [rule.allow for rule in self.rules if rule.covers(operation) and rule.matches(about)]
        return bool(verdicts) and verdicts[-1]


def read(text: str, parameters: Mapping[str, str], unknown: tuple[str, ...] = ()) -> Profile:
    """The profile of a text. unknown: operations that this macOS does not have. Raises Invalid."""
    forms = list(_forms(_tokens(text)))
    if not forms or forms[0] != ["version", "1"]:
        raise Invalid("profile does not begin with (version 1)")
    profile = Profile()
    for form in forms[1:]:
        _evaluate(form, profile, parameters, unknown)
    return profile


def _tokens(text: str) -> Iterator[str | Text]:
    i = 0
    while i < len(text):
        if text[i].isspace():
            i += 1
        elif text[i] in "()'":
            yield text[i]
            i += 1
        elif text[i] == '"':
            end = i + 1
            while end < len(text) and text[end] != '"':
                end += 2 if text[end] == "\\" else 1
            if end >= len(text):
                raise Invalid("a string without end")
            yield Text(text[i + 1 : end].replace('\\"', '"').replace("\\\\", "\\"))
            i = end + 1
        else:
            end = i
            while end < len(text) and not text[end].isspace() and text[end] not in "()'\"":
                end += 1
            yield text[i:end]
            i = end


def _forms(tokens: Iterator[str | Text], inside: bool = False) -> Iterator:
    for token in tokens:
        if isinstance(token, Text) or token not in ("(", ")", "'"):
            yield token
        elif token == "(":
            yield list(_forms(tokens, inside=True))
        elif token == "'":
            yield ["quote", next(tokens)]
        elif inside:
            return
        else:
            raise Invalid("a ) too many")
    if inside:
        raise Invalid("a ( without end")


def _evaluate(form, profile: Profile, parameters: Mapping[str, str], unknown: tuple[str, ...]) -> None:
    if not isinstance(form, list) or not form:
        raise Invalid(f"not a rule: {form!r}")
    head, *rest = form
    if head == "when":
        test, *body = rest
        if not isinstance(test, list) or test[0] != "defined?" or test[1][0] != "quote":
            raise Invalid(f"not a condition that we know: {test!r}")
        if test[1][1] not in PATHS + OTHERS:
            raise Invalid(f"the name of no operation: {test[1][1]}")
        if test[1][1] not in unknown:
            for inner in body:
                _evaluate(inner, profile, parameters, unknown)
        return
    if head not in ("allow", "deny") or not rest:
        raise Invalid(f"unbound variable: {head}")
    operation, *filters = rest
    if isinstance(operation, Text) or operation not in PATHS + OTHERS or operation in unknown:
        raise Invalid(f"unbound variable: {operation}")
    tests = [_filter(f, operation, profile, parameters) for f in filters]
    profile.rules.append(Rule(head == "allow", operation, lambda x: not tests or any(test(x) for test in tests)))


def _filter(form, operation: str, profile: Profile, parameters: Mapping[str, str]) -> Callable[[str], bool]:
    if not isinstance(form, list) or not form:
        raise Invalid(f"not a filter: {form!r}")
    head, *rest = form
    if head in ("require-all", "require-any", "require-not"):
        if not rest or (head == "require-not" and len(rest) != 1):
            raise Invalid(f"{head} of {len(rest)}")
        tests = [_filter(inner, operation, profile, parameters) for inner in rest]
        if head == "require-not":
            return lambda x: not tests[0](x)
        return lambda x: (all if head == "require-all" else any)(test(x) for test in tests)
    if len(rest) != 1:
        raise Invalid(f"{head} takes one argument")
    if head == "target" and operation in ("signal", "process-info*"):
        if rest[0] not in _TARGETS:
            raise Invalid(f"unbound variable: {rest[0]}")
        return lambda x: x == rest[0]
    if head not in ("subpath", "literal") or operation not in PATHS:
        raise Invalid(f"filter {head} does not apply to {operation}")
    path = _string(rest[0], parameters)
    if not path.startswith("/") or (path.endswith("/") and path != "/"):
        raise Invalid(f"not an absolute path: {path!r}")
    profile.paths.append(path)
    if head == "literal":
        return lambda x: x == path
    return lambda x: x == path or x.startswith(path.rstrip("/") + "/")


def _string(form, parameters: Mapping[str, str]) -> str:
    if isinstance(form, Text):
        return form
    if isinstance(form, list) and len(form) == 2 and form[0] == "param" and isinstance(form[1], Text):
        if form[1] not in parameters:
            raise Invalid(f"parameter {form[1]} is not given")
        return parameters[form[1]]
    raise Invalid(f"not a string: {form!r}")
