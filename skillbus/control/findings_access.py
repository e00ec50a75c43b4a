"""The way to the server, and what these credentials may do there. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from skillbus.bus.probe import Unseen
from skillbus.control.facts import Entry, Facts, Powers, SentinelFacts
from skillbus.control.findings import Finding, broken, named, note, ok, unseen, warning

_SLOW_MS = 50.0
_OFF_MS = 2000.0

RESETS = frozenset({"DEL", "SET epoch"})
"""What an admin needs for a reset, and nobody needs beside it."""


def access_findings(facts: Facts) -> Iterator[Finding]:
    """Every check of the way there, and of what one may do there."""
    yield _tls(facts)
    yield _database(facts)
    if facts.here.failure:
        return
    yield _latency(facts)
    yield _clock(facts)
    yield _user(facts)
    yield _powers(facts)
    yield _publish(facts)
    yield _hearing(facts)


def _tls(facts: Facts) -> Finding:
    if facts.is_tls or facts.is_local:
        return ok("tls", "the way is encrypted" if facts.is_tls else "the way does not leave this machine")
    return warning("tls", "passwords and orders travel in the clear", "use rediss:// on a server with TLS")


def _database(facts: Facts) -> Finding:
    if facts.database == 0:
        return ok("database", "keys live in database 0")
    seen = f"keys live in database {facts.database}; messages ignore it: a second fleet of this name hears them too"
    return note("database", seen, f"whoever sets a key by hand says redis-cli -n {facts.database}; best is database 0")


def _latency(facts: Facts) -> Finding:
    if not facts.pings_ms:
        return note("latency", "no PING was answered", "look again")
    median = sorted(facts.pings_ms)[len(facts.pings_ms) // 2]
    worst = max(facts.pings_ms)
    if median > _SLOW_MS:
        cure = "put it nearer, or see what keeps it busy (redis-cli --latency, SLOWLOG GET)"
        return warning("latency", f"a PING takes {median:.0f} ms, at worst {worst:.0f} ms", cure)
    return ok("latency", f"a PING takes {median:.1f} ms, at worst {worst:.1f} ms")


def _clock(facts: Facts) -> Finding:
    if isinstance(facts.clock, Unseen):
        return unseen("clock", "the server's clock", facts.clock)
    off_ms = facts.clock.server_ms - facts.clock.local_ms
    if abs(off_ms) > _OFF_MS + facts.clock.took_ms:
        way = "ahead of" if off_ms > 0 else "behind"
        seen = f"the server's clock is {abs(off_ms) / 1000:.1f} s {way} this machine's: times in the audit mislead"
        return warning("clock", seen, "keep both by NTP (nothing is decided by it)")
    return ok("clock", f"the server's clock and this machine's differ by {abs(off_ms)} ms")


def _user(facts: Facts) -> Finding:
    cure = "give everybody a user of a role of their own (skillbus acl), and switch default off"
    if isinstance(facts.user, Unseen):
        return unseen("user", "who we are there", facts.user)
    if facts.user == "default" and facts.here.entry is Entry.SHUT:
        return warning("user", "we log in as default, with the password of all: whoever has it can undo a kill", cure)
    if facts.user == "default":
        return warning("user", "we are default, as everybody is", cure)
    return ok("user", f"we are {facts.user}")


def _powers(facts: Facts) -> Finding:
    if isinstance(facts.powers, Unseen):
        return unseen("undo", "whether these credentials could delete the record", facts.powers)
    powers = facts.powers
    allowed = {name for name, is_allowed in powers.undo.items() if is_allowed}
    if not allowed:
        return ok("undo", f"these credentials cannot undo a kill ({powers.means}{_untried(powers)})")
    if allowed <= RESETS:
        seen = f"these credentials can reset ({powers.means}{_untried(powers)})"
        if facts.is_pod:
            return warning("undo", f"{seen}, and this is a pod", "give the pod a user of the role pod: skillbus acl")
        return note("undo", seen, "right for an admin, a person; no program should have them")
    seen = f"these credentials can undo a kill past any audit: {', '.join(sorted(allowed))} ({powers.means})"
    return warning("undo", seen, "use a user of a role: skillbus acl prints the lines")


def _untried(powers: Powers) -> str:
    return "" if "FLUSHALL" in powers.undo else "; FLUSHALL was not tried"


def _publish(facts: Facts) -> Finding:
    may = facts.powers if isinstance(facts.powers, Unseen) else facts.powers.publish_kill
    if isinstance(may, Unseen):
        cure = "ask as somebody who may ACL DRYRUN; skillbus drill shows the way that messages take"
        return note("publish", "whether these credentials may publish a kill was not tried: it would be one", cure)
    if may and facts.is_pod:
        return warning("publish", "this pod may publish a kill", "give it a user of the role pod: skillbus acl")
    if may or facts.is_pod:
        return ok("publish", "these credentials may stop" if may else "this pod cannot stop others")
    return note("publish", "these credentials may not publish a kill", "to stop, use those of an operator or a bot")


def _hearing(facts: Facts) -> Finding:
    if not facts.deaf_to:
        return ok("hearing", "these credentials may hear kills")
    seen = f"these credentials may not hear {named(name for name, _ in facts.deaf_to)} ({facts.deaf_to[0][1]})"
    cure = "give the user the line of its role: skillbus acl"
    if facts.is_pod:
        return broken("hearing", seen, cure)
    return note("hearing", seen, f"right for a bot; for anybody else {cure}")


def sentinel_finding(facts: Facts, sentinel: SentinelFacts) -> Finding:
    """Whether one Sentinel watches the server that the URL names."""
    if sentinel.failure:
        cure = "start it, correct --sentinel, or let our user in there"
        return warning("sentinel", f"Sentinel {sentinel.name}: {sentinel.failure}", cure)
    info = facts.here.info
    run_id = "" if isinstance(info, Unseen) else info.get("run_id", "")
    watched = [name for name, one in sentinel.masters if one and one == run_id]
    if watched:
        return ok("sentinel", f"Sentinel {sentinel.name} watches it as {named(watched)}")
    names = named(name for name, _ in sentinel.masters) or "none"
    if not run_id:
        return note(
            "sentinel", f"Sentinel {sentinel.name} watches {names}; whether that is this one cannot be seen", "-"
        )
    seen = f"Sentinel {sentinel.name} watches {names}, and its master is not the server that the URL names"
    return broken("sentinel", seen, "give the URL of the master that Sentinel names (SENTINEL get-master-addr-by-name)")
