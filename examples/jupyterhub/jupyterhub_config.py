"""A hub in which every user's server bears a pod of the fleet, and no user can stop another's or undo a stop.

Each server logs in to Redis as a user of its own, in the role ``tenant-pod``: that may read the kills of its fleet and
groups, keep its own evidence, and record the stop of itself alone. The hub makes that user when the server starts,
with ``skillbus acl``; the password follows from a secret that only the hub has.

The console is a service of the hub, under Services in its menu: one logs in through the hub, and the hub's groups say
who may look, who may stop, and who may permit a restart.

Besides jupyterhub this needs, on the hub's machine: skillbus[hub], redis-cli.
"""

import hashlib
import hmac
import os
import re
import subprocess
from pathlib import Path

c = get_config()  # noqa: F821 (JupyterHub gives it)

REDIS_URL = os.environ["SKILLBUS_REDIS_URL"]  # as the servers reach it
ADMIN = os.environ["SKILLBUS_ACL_ADMIN_URL"]  # redis://USER@HOST:PORT, a user that may ACL SETUSER; for the hub alone
SECRET = Path(os.environ["SKILLBUS_HUB_SECRET_FILE"]).read_bytes()  # 32 random bytes: openssl rand 32 > FILE
MANIFEST = os.environ["SKILLBUS_SKILLS_MANIFEST"]

# What a user chooses at the start of a server decides which fleet and groups its pod belongs to.
PROFILES = {
    "": ("prod", ["notebooks"]),
    "gpu": ("prod", ["notebooks", "gpu"]),
    "course": ("teaching", []),
}


def pod_id_of(user, server):
    """A name that fits the protocol, and is no other's: two users' names may look alike once they are cleaned."""
    readable = re.sub(r"[^A-Za-z0-9.-]", "-", f"{user}-{server}" if server else user)[:40]
    return f"hub-{readable}-{hashlib.sha256(f'{user}/{server}'.encode()).hexdigest()[:8]}"


def admit(spawner):
    """Before a server starts: its Redis user, and what it is told."""
    fleet, groups = PROFILES[spawner.user_options.get("profile", "")]
    pod_id = pod_id_of(spawner.user.name, spawner.name)
    password = hmac.new(SECRET, pod_id.encode(), "sha256").hexdigest()
    who = ["--tenant", "--pod-id", pod_id, *(word for group in groups for word in ("--group", group))]
    lines = subprocess.run(
        ["skillbus", "acl", "--role", "pod", *who, "--fleet", fleet, "--hash-from-stdin", "--format", "setuser"],
        input=password,
        text=True,
        check=True,
        capture_output=True,
    ).stdout
    # Only the user's own line: switching off "default" is the administrator's affair, and long done.
    own = [line for line in lines.splitlines() if line.startswith("ACL SETUSER tenant-pod-")]
    subprocess.run(["redis-cli", "-u", ADMIN], input="\n".join(own), text=True, check=True, capture_output=True)
    spawner.environment.update(
        SKILLBUS_REDIS_URL=REDIS_URL,
        SKILLBUS_REDIS_USERNAME=f"tenant-pod-{pod_id}",
        SKILLBUS_REDIS_PASSWORD=password,
        SKILLBUS_FLEET=fleet,
        SKILLBUS_GROUPS=",".join(groups),
        SKILLBUS_POD_ID=pod_id,
        SKILLBUS_SKILLS_MANIFEST=MANIFEST,
    )


c.Spawner.pre_spawn_hook = admit


# -- the console ------------------------------------------------------------------------------------------------------

c.JupyterHub.services = [
    {
        "name": "skillbus",
        "url": "http://127.0.0.1:8321",  # where the console listens; people reach it at …/services/skillbus/
        "command": ["skillbus", "serve"],
        "oauth_client_allowed_scopes": ["custom:skillbus:operate", "custom:skillbus:reset"],  # else no login bears them
        "oauth_no_confirm": True,
        "environment": {
            "SKILLBUS_FLEET": "prod",
            # redis://console:PASSWORD@HOST:PORT, of: skillbus acl --role console. It can undo nothing.
            "SKILLBUS_REDIS_URL_FILE": os.environ["SKILLBUS_HUB_CONSOLE_URL_FILE"],
            # Likewise of --role admin, for resets alone. Without it the console refuses them.
            "SKILLBUS_CONSOLE_ADMIN_REDIS_URL_FILE": os.environ.get("SKILLBUS_HUB_ADMIN_URL_FILE", ""),
            "SKILLBUS_STATE_DIR": os.environ.get("SKILLBUS_HUB_STATE_DIR", "/var/lib/skillbus"),
            "SKILLBUS_CONSOLE_TRUSTED_PROXIES": "127.0.0.1",  # the hub's proxy: else everybody's address is its
            # A file of tokens besides: for bots, and for people when the hub is down.
            "SKILLBUS_CONSOLE_TOKENS": os.environ.get("SKILLBUS_HUB_TOKENS_FILE", ""),
        },
    }
]
c.JupyterHub.custom_scopes = {
    "custom:skillbus:operate": {"description": "Stop pods, rehearse the stop, ask for a pass"},
    "custom:skillbus:reset": {"description": "Permit stopped pods to restart"},
}
LOOK = "access:services!service=skillbus"
c.JupyterHub.load_groups = {  # filled in the hub's admin page, or here
    "skillbus-viewers": {"users": []},
    "skillbus-oncall": {"users": []},
    "skillbus-admins": {"users": []},
}
c.JupyterHub.load_roles = [
    {"name": "skillbus-look", "groups": ["skillbus-viewers"], "scopes": [LOOK]},
    {"name": "skillbus-stop", "groups": ["skillbus-oncall"], "scopes": [LOOK, "custom:skillbus:operate"]},
    {"name": "skillbus-reset", "groups": ["skillbus-admins"], "scopes": [LOOK, "custom:skillbus:reset"]},
]
