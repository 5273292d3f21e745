"""The `thimble` command. Groups are imported when they are used, so that help and completion are quick.

Every error ends here: a `Problem` becomes text (or its document, with --json) on standard error
and the exit code of `core.problem.TABLE`; there is no stack trace unless THIMBLE_DEBUG=1.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from thimble import __version__
from thimble.cli import tables
from thimble.cli.command import output_options, trust_options, word
from thimble.cli.session import CliSession
from thimble.core.problem import Code, Problem

#: command → (module, what it is for)
COMMANDS = {
    "login": ("thimble.cli.login", "Sign in to a host and save it as a profile."),
    "logout": ("thimble.cli.login", "Sign out."),
    "plan": ("thimble.cli.document", "Show what applying a host document would do."),
    "apply": ("thimble.cli.document", "Apply a host document."),
    "export": ("thimble.cli.document", "Write a host's present configuration as a document."),
    "document": ("thimble.cli.document", "The document's schema, and the last one applied."),
    "vm": ("thimble.cli.vm", "Virtual machines."),
    "disk": ("thimble.cli.disk", "Volumes, images and datastores."),
    "net": ("thimble.cli.switch", "Virtual switches."),
    "task": ("thimble.cli.task", "Tasks: long-running work."),
    "host": ("thimble.cli.host", "The host itself; `host run` runs one on this Linux."),
    "user": ("thimble.cli.user", "Users who may sign in."),
    "token": ("thimble.cli.user", "API tokens for programs."),
    "image": ("thimble.cli.image", "Build and inspect the bootable image."),
    "lab": ("thimble.cli.lab", "Virtual servers that boot the image."),
}

COMPLETION = """\
Sign in once with `thimble login https://ADDRESS/`. Environment: THIMBLE_HOST, THIMBLE_PROFILE, THIMBLE_TOKEN,
THIMBLE_FINGERPRINT, THIMBLE_PASSWORD.

\b
Completion for bash (zsh, fish likewise):
  eval "$(_THIMBLE_COMPLETE=bash_source thimble)"
"""


class LazyGroup(click.Group):
    """Knows its commands' names and lines of help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=line)
            for name, (_, line) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


cli = LazyGroup(
    "thimble",
    help="Thimble: a hypervisor you carry.",
    epilog=COMPLETION,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        word("--host", "host", "URL", "The host to connect to.", envvar="THIMBLE_HOST"),
        word(
            "--profile", "profile", "NAME", "A saved profile (see `thimble login`).", envvar="THIMBLE_PROFILE"
        ),
        word("--token", "token", "TOKEN", "Authenticate with this token.", envvar="THIMBLE_TOKEN"),
        *trust_options(),
        *output_options(),
    ],
)
click.version_option(__version__, prog_name="thimble", message="%(prog)s %(version)s")(cli)


def run(arguments: Sequence[str], session: CliSession | None = None) -> int:
    """One command line; its exit code."""
    session = session or CliSession()
    session.json = "--json" in arguments  # so that errors in reading the command line are JSON, too
    try:
        code = cli.main(list(arguments), prog_name="thimble", standalone_mode=False, obj=session)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except Problem as problem:
        return report(session, problem)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except click.ClickException as error:
        if session.json:
            return report(session, Problem(Code.MALFORMED, error.format_message()))
        error.show()
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if os.environ.get("THIMBLE_DEBUG"):
            raise
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return report(session, Problem(Code.INTERNAL, what, hint="Set THIMBLE_DEBUG=1 for a traceback."))


def report(session: CliSession, problem: Problem) -> int:
    """Print the error; its exit code."""
    if os.environ.get("THIMBLE_DEBUG"):
        import traceback

        traceback.print_exception(problem)
    if session.json:
        click.echo(tables.as_json(problem.document()), err=True)
    else:
        click.echo(tables.safe(tables.problem_text(problem)), err=True)
    return problem.exit_code


def main() -> None:
    """The program."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
