"""The verbs of signing in and out, over `Auth`."""

from __future__ import annotations

from thimble.access.auth import Auth, Who
from thimble.contract import host as wire
from thimble.contract.call import Call
from thimble.contract.common import DryRun, Nothing
from thimble.core.decision import GO, Decision, blocked
from thimble.core.problem import Code, Reason
from thimble.dispatch import run


class SessionService:
    """Signing in and out; open to everybody."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    async def create(self, call: Call[wire.Login]) -> wire.Session | DryRun:
        async def decide() -> Decision[str]:
            user = await self._auth.prove(call.input.user, call.input.password, call.peer)
            return Decision(plan=user.id, effects=(f"signs {user.id} in",))

        async def act(decision: Decision[str]) -> wire.Session:
            assert decision.plan is not None
            token, who = self._auth.open_session(decision.plan)
            return wire.Session(token=token, user=who.user, role=who.role, expires=who.expires)

        return await run.now(call, decide, act)

    async def get(self, call: Call[None]) -> wire.Session:
        """Who am I; the token itself is never shown again."""
        return wire.Session(token="", user=call.user, role=call.role, expires=self._caller(call).expires)

    async def delete(self, call: Call[None]) -> Nothing | DryRun:
        def decide() -> Decision[bool]:
            if self._caller(call).program:
                message = "this is a program's token, not a session"
                return blocked(Reason(message=message, code=Code.CONFLICT), hint="Delete the token instead.")
            return Decision(plan=GO, effects=(f"signs {call.user} out",))

        async def act(_: Decision[bool]) -> Nothing:
            self._auth.sessions.close(call.token)
            return Nothing()

        return await run.now(call, decide, act)

    async def ticket(self, call: Call[None]) -> wire.Ticket | DryRun:
        def decide() -> Decision[Who]:
            return Decision(plan=self._caller(call), effects=("makes a ticket",))

        async def act(decision: Decision[Who]) -> wire.Ticket:
            assert decision.plan is not None
            ticket, expires = self._auth.issue_ticket(decision.plan)
            return wire.Ticket(ticket=ticket, expires=expires)

        return await run.now(call, decide, act)

    async def password(self, call: Call[wire.PasswordChange]) -> Nothing | DryRun:
        """Change one's own password; signs out everywhere else."""

        async def decide() -> Decision[str]:
            user = await self._auth.prove(call.user, call.input.old, call.peer)
            return Decision(plan=user.id, effects=("changes the password", "signs out every other session"))

        async def act(decision: Decision[str]) -> Nothing:
            assert decision.plan is not None
            await self._auth.set_user(decision.plan, password=await self._auth.hashed(call.input.new))
            self._auth.sessions.close_all(decision.plan, but=call.token)
            return Nothing()

        return await run.now(call, decide, act, turn=self._auth.turn)

    def _caller(self, call: Call[None]) -> Who:
        return self._auth.who(call.token)
