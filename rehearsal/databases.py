"""RDS PostgreSQL instances as containers, reached by their endpoint's name."""

from __future__ import annotations

import hashlib
import itertools
import time
from ipaddress import IPv4Network
from typing import Any, NamedTuple

from emulator.world import RehearsalError, World
from rehearsal.balancer import services_image
from rehearsal.containers import containers, create, docker, process, remove
from rehearsal.network import Networks

# The master user is no superuser on AWS: it may make databases and roles. The empty cluster and every segment of its log since are kept:
# another database begins as a copy of them, and stops replaying the log at its moment.
START = """set -eu
bin=$(echo /usr/lib/postgresql/*/bin) home=/var/lib/postgresql data=/var/lib/postgresql/rds
if ! [ -e $data/ready ]; then
  rm -rf $data && install -d -o postgres -m 700 $data && install -d -o postgres $home/log
  if [ -e $home/begin ]; then
    cp -a $home/begin/. $data
    printf '%s\\n' "restore_command = 'cp $home/log/%f %p'" "recovery_target_action = 'promote'" >>$data/postgresql.auto.conf
    if [ "$RDS_MOMENT" ]; then echo "recovery_target_time = '$RDS_MOMENT'" >>$data/postgresql.auto.conf; fi
    touch $data/recovery.signal && chown postgres $data/recovery.signal
  else
    runuser -u postgres -- $bin/initdb -D $data -A scram-sha-256 --pwfile=/etc/rds/superuser -U rdsadmin --wal-segsize=1 >/dev/null
    cp -a $data $home/begin
  fi
  openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=postgres -addext "subjectAltName=DNS:$RDS_NAME" \\
    -keyout $data/server.key -out $data/server.crt 2>/dev/null
  chown postgres $data/server.* && chmod 600 $data/server.key
  printf '%s\\n' "listen_addresses = '*'" "port = $RDS_PORT" 'ssl = on' "unix_socket_directories = '/run/rds'" \\
    'archive_mode = on' "archive_command = 'test ! -e $home/log/%f && cp %p $home/log/%f'" >>$data/postgresql.conf
  printf '%s\\n' 'local all rdsadmin trust' "$RDS_HOST all all 0.0.0.0/0 scram-sha-256" >$data/pg_hba.conf
  touch $data/ready
fi
install -d -o postgres /run/rds
exec runuser -u postgres -- $bin/postgres -D $data
"""


GRANT = """
select format('create role %I login createdb createrole', :'user') where not exists (select from pg_roles where rolname = :'user') \\gexec
select format('alter role %I password %L', :'user', :'password') \\gexec
select format('create database %I owner %I', :'database', :'user')
  where not exists (select from pg_database where datname = :'database') \\gexec
"""


STARTING = {"creating", "renaming"}
KEEP_LOG = "select pg_current_xact_id(), pg_walfile_name(pg_current_wal_lsn())"  # a commit: replaying ends at a moment before one


class Wanted(NamedTuple):
    """What the API says of a database."""

    name: str
    status: str
    port: int
    user: str
    password: str
    database: str
    endpoint: str
    vpc: str
    cidr: str
    subnet: str
    force_ssl: bool
    rules: str


class Databases:
    """The loop of databases."""

    def __init__(self, world: World, networks: Networks) -> None:
        self.world, self.networks = world, networks
        self.secrets: dict[str, str] = {}  # database: hash of the password in force

    def step(self) -> None:
        """Bring the containers to what the API says, and say when a database is available."""
        prefix = f"{self.world.settings.name}-db-"
        with self.world.lock:
            renamed, self.world.renamed = self.world.renamed, []
            wanted = [
                self._wanted(d)
                for d in self.world.backend("rds").databases.values()
                if str(d.engine).startswith("postgres")
            ]
        for before, name in renamed:
            docker("rename", prefix + before, prefix + name)
            docker("restart", prefix + name)  # as AWS does
            self.secrets[name] = self.secrets.pop(before, "")
            self.world.processes.pop(prefix + before, None)
        have = {
            name.removeprefix(prefix): s
            for name, s in containers(self.world.settings.name).items()
            if name.startswith(prefix)
        }
        for name in set(have) - {w.name for w in wanted}:
            remove(prefix + name)
            self.world.processes.pop(prefix + name, None)
            self.secrets.pop(name, None)
            self.world.addresses.pop(name, None)
        for want in wanted:
            self._apply(prefix + want.name, want, have.get(want.name))

    def _wanted(self, kept: Any) -> Wanted:
        ec2, rds = self.world.backend("ec2"), self.world.backend("rds")
        group = getattr(kept, "db_subnet_group", None)
        subnets = group._subnets if group else list(ec2.get_default_subnets().values())  # noqa: SLF001  moto has no public name
        subnet, name = min(subnets, key=lambda s: str(s.id)), kept.db_instance_identifier
        taken = {self.world.addresses.get(each) for each in rds.databases}
        free = (str(IPv4Network(subnet.cidr_block)[-30 - number]) for number in itertools.count())
        if name not in self.world.addresses:
            self.world.addresses[name] = next(address for address in free if address not in taken)
        parameters = rds.db_parameter_groups.get(kept.db_parameter_group_name or "")
        given = (parameters.parameters if parameters else {}).get("rds.force_ssl") or {}
        groups = [ec2.get_security_group_from_id(g) for g in kept.vpc_security_group_ids or []]
        rules = (
            self.networks.rules(groups, subnet.vpc_id, subnet.id, public=False)
            if subnet.vpc_id in self.networks.made
            else ""
        )
        password = kept._master_user_password  # noqa: SLF001  likewise
        return Wanted(name, kept.status, int(kept.port), kept.master_username, password,
                      kept.db_name or "postgres", kept.address, subnet.vpc_id, ec2.get_vpc(subnet.vpc_id).cidr_block, subnet.id,
                      str(given.get("ParameterValue", "1")) != "0", rules)  # fmt: skip

    def _apply(self, container: str, want: Wanted, have: str | None) -> None:
        settings = self.world.settings
        if have is None:
            image = services_image(settings.name, settings.image)
            options = [*self.networks.ensure(want.vpc, want.cidr), f"--ip={self.world.addresses[want.name]}",
                       f"--env=RDS_NAME={want.endpoint}", f"--env=RDS_PORT={want.port}",
                       f"--env=RDS_HOST={'hostssl' if want.force_ssl else 'host'}", "--cap-add=NET_ADMIN"]  # fmt: skip
            secret = hashlib.sha256(f"superuser {want.password}".encode()).hexdigest()
            source, moment = self.world.restored.get(want.name, ("", ""))
            options.append(f"--env=RDS_MOMENT={moment}")
            kept = self._kept(source, want.port) if source else ""
            copied = [(kept, f"/var/lib/postgresql/{part}") for part in ("begin", "log")] if source else []
            given = {"/etc/rds/superuser": secret + "\n"}
            create(container, settings.name, image, ["sh", "-c", START], options, given, copied)
        elif have == "exited" and want.status != "stopped":
            self.world.say(f"{want.name} ended and is started again; why: docker logs {container}")
            docker("start", container)
        elif have == "running" and want.status == "stopped":
            docker("stop", container)
        if want.status in {*STARTING, "available"}:
            self.networks.protect(container, self._process(container, have), want.rules)
            self._serve(container, want)

    def _kept(self, name: str, port: int) -> str:
        """Have a database keep its log up to now; return its container."""
        container = f"{self.world.settings.name}-db-{name}"
        segment = asked(container, port, "-c", KEEP_LOG).rpartition("|")[2]
        asked(container, port, "-c", "select pg_switch_wal()")
        deadline = time.monotonic() + 20
        while asked(container, port, "-c", "select last_archived_wal from pg_stat_archiver") < segment:
            if time.monotonic() > deadline:
                raise RehearsalError(f"{container} does not keep its log: docker logs {container}")
            time.sleep(0.1)
        return container

    def _process(self, container: str, have: str | None) -> int:
        if have != "running" or not self.world.processes.get(container):
            self.world.processes[container] = process(container)
        return self.world.processes[container]

    def _serve(self, container: str, want: Wanted) -> None:
        """Give the master user its password and database; then the database is available."""
        key = hashlib.sha256(f"{want.user} {want.password}".encode()).hexdigest()
        if self.secrets.get(want.name) == key and want.status == "available":
            return
        if asked(container, want.port, "-c", "select pg_is_in_recovery()", check=False) != "f":
            return
        given = {"user": want.user, "password": want.password, "database": want.database}
        lines = [f"\\set {name} '{escaped(value)}'" for name, value in given.items()]
        asked(container, want.port, text="\n".join([*lines, GRANT]))
        self.secrets[want.name] = key
        with self.world.lock:
            kept = self.world.backend("rds").databases.get(want.name)
            if kept is not None and kept.status in STARTING:
                kept.status = "available"
                self.world.say(f"{want.name} is available")


def asked(container: str, port: int, *flags: str, text: str | None = None, check: bool = True) -> str:
    """Ask a database as its superuser, by flags of psql or its standard input."""
    psql = f"psql -h /run/rds -p {port} -U rdsadmin -d postgres -qAt -v ON_ERROR_STOP=1"
    return docker("exec", "-i", container, *psql.split(), *flags, text=text, check=check)


def escaped(value: str) -> str:
    """Return a value as psql reads it between single quotes."""
    return value.replace("\\", "\\\\").replace("'", "\\'")
