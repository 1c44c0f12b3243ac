"""A coding agent on the command line. It reads a brief from standard input, edits the worktree, prints a hypothesis."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mlx_autoresearch.ledger.files import BRIEF, SCRATCH, TRANSCRIPT
from mlx_autoresearch.ledger.ledger import Record
from mlx_autoresearch.machine import system
from mlx_autoresearch.machine.paths import cache_dir
from mlx_autoresearch.plain_text import one_line
from mlx_autoresearch.sandbox.command import Outcome, run_command
from mlx_autoresearch.sandbox.confinement import Confinement, confinement
from mlx_autoresearch.sandbox.environment import clean_environment, temporary_folder
from mlx_autoresearch.sandbox.readable import devices, private_places, program_files, system_files

from .base import Context, Proposal, ProposalFailed
from .brief import read_answer, write_brief
from .settings import AgentSettings

_NETWORK = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
)
# Git ends with an error at a file of the user's settings that it may not read, so it looks for none.
_GIT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "core.excludesFile",
    "GIT_CONFIG_VALUE_0": "",
    "GIT_CONFIG_KEY_1": "core.attributesFile",
    "GIT_CONFIG_VALUE_1": "",
}


@dataclass(frozen=True)
class _Preset:
    """command: reads the brief from standard input, may edit files and run nothing that needs asking.

    own_sandbox: on macOS it starts every command of its model under sandbox-exec.
    """

    command: list[str]
    environment: list[str]
    writable: list[str]
    readable: list[str] = field(default_factory=list)
    own_sandbox: bool = False


PRESETS = {
    # https://docs.claude.com/en/docs/claude-code/headless: acceptEdits allows edits in the folder it runs in
    "claude": _Preset(
        ["claude", "-p", "--permission-mode", "acceptEdits"],
        ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "CLAUDE_CODE_OAUTH_TOKEN"],
        ["~/.claude", "~/.claude.json"],
        ["~/.local/share/claude", "/etc/claude-code", "/Library/Application Support/ClaudeCode"],
    ),
    # https://developers.openai.com/codex/noninteractive: "-" reads the prompt from standard input
    "codex": _Preset(
        ["codex", "exec", "--sandbox", "workspace-write", "--color", "never", "-"],
        ["OPENAI_API_KEY", "OPENAI_BASE_URL", "CODEX_API_KEY"],
        ["~/.codex"],
        ["/etc/codex"],
        own_sandbox=True,
    ),
    # https://geminicli.com/docs/cli/headless: the prompt is appended to standard input; auto_edit allows edits only
    "gemini": _Preset(
        ["gemini", "--approval-mode", "auto_edit", "--skip-trust", "--prompt", "Carry out the experiment above."],
        ["GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION"],
        ["~/.gemini"],
        ["/etc/gemini-cli", "/Library/Application Support/GeminiCli"],
    ),
}


class AgentProposer:
    """Starts the agent anew for every experiment; all it knows of earlier ones is in the brief."""

    trusted = False

    def __init__(self, settings: AgentSettings, most_seeds: int | None, memory_mb: float | None = None):
        """most_seeds: of one candidate, which the brief tells; None where one seed decides. memory_mb: MiB."""
        preset = PRESETS[settings.preset] if settings.preset else _Preset(list(settings.command or []), [], [])
        self._command = [*preset.command, *settings.extra]
        self._environment = [*_NETWORK, *(n.lower() for n in _NETWORK), *preset.environment, *settings.environment]
        self._writable = [*preset.writable, *settings.writable]
        self._readable = [*preset.readable, *settings.readable]
        self._memory_mb = memory_mb
        # macOS refuses a sandbox within a sandbox: confined, such an agent could run nothing.
        self._confines_itself = (preset.own_sandbox or settings.own_sandbox) and system.is_macos()
        self._minutes = settings.minutes
        self._most_seeds = most_seeds
        self.name = f"agent:{settings.preset or Path(self._command[0]).name}"

    def propose(self, context: Context) -> Proposal | None:
        """Run the agent on the worktree. Its brief and what it prints are kept in the experiment's folder.

        Raises ProposalFailed: "timeout"; "exception" for a program that is missing or exits non-zero; "guard" for one
        that leaves processes running or prints without end.
        """
        brief = context.folder / BRIEF
        brief.write_text(write_brief(context, self._most_seeds, self._minutes), encoding="utf-8")
        program = shutil.which(self._command[0])
        if program is None:
            raise ProposalFailed("exception", f"{self._command[0]} is not installed, or not in PATH")
        with temporary_folder(context.folder, SCRATCH) as temporary:
            program = os.path.abspath(program)  # it is started in another folder
            outcome = run_command(
                [program, *self._command[1:]],
                transcript=context.folder / TRANSCRIPT,
                cwd=context.worktree,
                env=clean_environment(Path.home(), temporary, **_GIT, **self._passed_on()),
                seconds=60 * self._minutes,
                mark=context.mark,
                memory_mb=self._memory_mb,
                confinement=None if self._confines_itself else self._confinement(program, context, temporary),
                stdin=brief,
            )
        _check(outcome, self._minutes)
        hypothesis, kind = read_answer(outcome.output)
        return Proposal(hypothesis, kind)

    def told(self, record: Record) -> None:
        """Nothing to remember: the brief is made from the ledger."""

    def _confinement(self, program: str, context: Context, temporary: Path) -> Confinement:
        arguments = [
            word for word in self._command[1:] if os.path.isabs(word) and os.path.isfile(word)
        ]  # such as a script
        return confinement(
            readable=[*system_files(network=True), *program_files(program), *_existing([*self._readable, *arguments])],
            writable=[context.worktree, temporary, *_existing(self._writable)],
            closed=[*private_places(), cache_dir(), context.worktree.parent],
            devices=devices(gpu=False),
            network=True,
        )

    def _passed_on(self) -> dict[str, str]:
        return {name: os.environ[name] for name in self._environment if name in os.environ}


def _check(outcome: Outcome, minutes: float) -> None:
    if outcome.ended == "timeout":
        raise ProposalFailed("timeout", f"the agent was not done after {minutes:g} minutes; killed")
    if outcome.ended == "memory":
        raise ProposalFailed("exception", f"out of memory: the agent took {outcome.peak_mb:,.0f} MiB; killed")
    if outcome.ended == "output":
        raise ProposalFailed("guard", "the agent printed without end; killed")
    if outcome.ended != "exit":
        raise ProposalFailed("guard", outcome.trouble)
    if outcome.returncode:
        last = one_line((outcome.output.strip().splitlines() or ["it printed nothing"])[-1])
        raise ProposalFailed("exception", f"the agent ended with exit code {outcome.returncode}: {last}")
    if outcome.leftovers:
        raise ProposalFailed("guard", f"the agent left {outcome.leftovers} processes running; killed")


def _existing(paths: Iterable[str]) -> list[Path]:
    return [path for path in (Path(p).expanduser() for p in paths) if path.exists()]
