"""The example's configuration, for one machine without accounts: everybody may log in, and no password is asked."""

import json
import os
import shutil
import sys
from pathlib import Path

here = Path(os.environ["HUB_FOLDER"])
load_subconfig(os.environ["HUB_EXAMPLE"])  # type: ignore[name-defined]  # noqa: F821
c = get_config()  # type: ignore[name-defined]  # noqa: F821

c.JupyterHub.bind_url = f"http://127.0.0.1:{os.environ['HUB_PORT']}/base"
c.JupyterHub.hub_port = int(os.environ["HUB_OWN_PORT"])
c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.spawner_class = "simple"
c.JupyterHub.db_url = f"sqlite:///{here / 'hub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(here / "cookie_secret")
c.Authenticator.allow_all = True
c.SimpleLocalProcessSpawner.home_dir_template = str(here / "home" / "{username}")
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser", "--allow-root"]
c.Spawner.http_timeout = c.Spawner.start_timeout = 150  # two cores, and two servers at once
c.Spawner.environment = {"SKILLBUS_SPREAD": "0", "SKILLBUS_SKILLS_TARGETS": "./skills"}
c.ConfigurableHTTPProxy.command = [shutil.which("configurable-http-proxy") or ""]
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{os.environ['HUB_PROXY_PORT']}"
c.ConfigurableHTTPProxy.pid_file = str(here / "proxy.pid")
c.JupyterHub.services[0]["url"] = f"http://127.0.0.1:{os.environ['HUB_CONSOLE_PORT']}"
for group, users in json.loads(os.environ["HUB_GROUPS"]).items():
    c.JupyterHub.load_groups[group]["users"] = users
c.JupyterHub.services.extend([{"name": "tests", "api_token": os.environ["HUB_TOKEN"]}])
c.JupyterHub.load_roles.extend(
    [{"name": "tests", "scopes": ["admin:users", "admin:servers", "access:servers", "groups"], "services": ["tests"]}]
)
