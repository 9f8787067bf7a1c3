"""Writes to VibeJudge's database, one after the other, and what was acknowledged of them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import httpx

from tests.unit.judge.conftest import PASSWORD, hackathon

API = "/judge/api/api/v1"


@dataclass
class Writers:
    """Writes to VibeJudge through the balancer, one after the other, and what was acknowledged."""

    url: str
    key: str = ""
    acknowledged: set[str] = field(default_factory=set)
    refused: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def client(self) -> httpx.Client:
        """Return a client of the organizer; the rehearsal's certificate is its own."""
        return httpx.Client(base_url=f"{self.url}{API}", timeout=30, verify=False, headers={"X-API-Key": self.key})  # noqa: S501

    def register(self) -> str:
        """Make the organizer; return the address that it has."""
        email = f"gameday-{time.time_ns()}@example.org"
        with self.client() as client:
            body = {"email": email, "name": "Game day", "password": PASSWORD}
            self.key = str(client.post("/organizers", json=body).raise_for_status().json()["api_key"])
        return email

    def run(self) -> None:
        """Write until it is over; a write that was answered otherwise than 201 was not acknowledged."""
        with self.client() as client:
            while not self.over.wait(0.25):
                try:
                    answer = client.post("/hackathons", json=hackathon(name=f"Day {time.time_ns()}"))
                except httpx.TransportError:
                    self.refused += 1
                    continue
                if answer.status_code == 201:
                    self.acknowledged.add(str(answer.json()["hack_id"]))
                else:
                    self.refused += 1

    def lost(self, known: frozenset[str] = frozenset()) -> int:
        """Return how many acknowledged writes, but for those in `known`, are not there any more."""
        with self.client() as client:
            return sum(not self.kept(client, key) for key in sorted(self.acknowledged - known))

    @staticmethod
    def kept(client: httpx.Client, key: str) -> bool:
        """Return whether a hackathon is there; who asks too often waits as he is told."""
        while (answer := client.get(f"/hackathons/{key}")).status_code == 429:
            time.sleep(float(answer.headers.get("Retry-After", "1")))
        return answer.status_code == 200
