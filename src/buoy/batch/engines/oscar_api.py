"""An OSCAR cluster: found, asked, and its refusals told in our words.

Not with oscar-python: it takes half a second to import, fetches the service anew for each job, and its errors do not
tell what can be tried again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import yaml

from buoy.errors import JobError, UsageError

__all__ = ["Cluster", "OscarApi", "Refused", "find_cluster"]

_TIMEOUT_S = 60.0


class Cluster(NamedTuple):
    """Where an OSCAR is, and who asks."""

    url: str
    user: str
    password: str
    verify: bool = True


class Refused(JobError):
    """The cluster understood, and will not; `status` is that of HTTP."""

    def __init__(self, message: str, hint: str, status: int) -> None:
        super().__init__(message, hint, retry=status == 429 or status >= 500)
        self.status = status


def find_cluster(name: str = "") -> Cluster:
    """The cluster of that name in the configuration of oscar-cli; without a name, that of BUOY_URL, else its default.

    Raises:
        UsageError: nothing says where it is.
    """
    known = os.environ
    if not name and (url := known.get("BUOY_URL")):
        return Cluster(url.rstrip("/"), known.get("BUOY_USER", "oscar"), known.get("BUOY_PASSWORD", ""))
    path = Path(known.get("OSCAR_CLI_CONFIG") or Path.home() / ".oscar-cli" / "config.yaml")
    hint = "set BUOY_URL, BUOY_USER and BUOY_PASSWORD, or add it with: oscar-cli cluster add"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        entry = config["oscar"][name or config["default"]]
        verify = bool(entry.get("ssl_verify", True))
        return Cluster(entry["endpoint"].rstrip("/"), str(entry["auth_user"]), str(entry["auth_password"]), verify)
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"no OSCAR cluster {name or 'is known'}: {path}: {error}", hint) from error


class OscarApi:
    """One service of a cluster, and what is there to see of the cluster. Every call may raise a `JobError`."""

    def __init__(self, cluster: Cluster, service: str) -> None:
        self.service, self.url = service, cluster.url
        self._http = httpx2.Client(
            base_url=cluster.url, auth=(cluster.user, cluster.password), verify=cluster.verify, timeout=_TIMEOUT_S
        )
        self._token = ""

    def status(self) -> dict[str, Any]:
        """`GET /system/status`, in whatever layout the cluster has."""
        found: dict[str, Any] = self._ask("GET", "/system/status").json()
        return found

    def quota(self) -> dict[str, Any]:
        """What the user may have; empty where there are no quotas."""
        try:
            found: dict[str, Any] = self._ask("GET", "/system/quotas/user").json()
        except Refused as refused:
            if refused.status in (404, 503):  # no such route, or quotas are off
                return {}
            raise
        return found

    def submit(self, event: str, name: str) -> None:
        """Start a job; one of that name that is there already is the one.

        `X-Delegated-Job-ID` becomes the job's name, so that a request that is sent twice makes one job, and whoever
        comes later knows the job by its name.
        """
        headers = {"Authorization": f"Bearer {self._secret()}", "X-Delegated-Job-ID": name}
        try:
            self._ask("POST", f"/job/{self.service}", content=event.encode(), headers=headers, auth=None)
        except Refused as refused:
            if refused.status == 401:  # made anew, perhaps
                self._token = ""
            if "already" not in str(refused):
                raise

    def jobs(self) -> Iterator[tuple[str, str]]:
        """Names and states of the service's jobs, page by page: each page costs the cluster dearly."""
        page = ""
        while True:
            found = self._ask("GET", f"/system/logs/{self.service}", params={"page": page} if page else {}).json()
            for name, job in (found.get("jobs") or {}).items():
                yield name, str(job.get("status", ""))
            if not (page := found.get("next_page") or ""):
                return

    def remove(self, name: str) -> None:
        """Delete one job, and its pod; nothing if it is not there. Never all: other runs have jobs here too."""
        try:
            self._ask("DELETE", f"/system/logs/{self.service}/{name}")
        except Refused as refused:
            if refused.status != 404:
                raise

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    def _secret(self) -> str:
        if not self._token:
            self._token = str(self._ask("GET", f"/system/services/{self.service}").json()["token"])
        return self._token

    def _ask(self, method: str, path: str, **how: Any) -> httpx2.Response:
        try:
            answer = self._http.request(method, path, **how)
        except httpx2.HTTPError as error:
            raise JobError(f"{self.url}{path}: {error}", "is the cluster reachable?", retry=True) from error
        if answer.is_success:
            return answer
        told = answer.text.strip()[:300] or "no reason given"
        hint = f"apply fdl/<model>/batch.yaml, or name the service: --service; it was {self.service}"
        raise Refused(
            f"{self.url}{path}: HTTP status {answer.status_code}: {told}",
            hint if answer.status_code == 404 else "",
            answer.status_code,
        )
