"""The buckets of the cloud plan."""

from __future__ import annotations

from typing import Any

from app.core.cloud.site import Site

# the bucket of logs first: the others write their access logs there
PURPOSES = ("logs", "artefacts", "data", "backups")
REPLICATED = ("data", "backups")
# what may write into the bucket of logs: the service, and the folder
WRITERS = {
    "logdelivery.elasticloadbalancing.amazonaws.com": "balancer/*",
    "logging.s3.amazonaws.com": "s3/*",
    "cloudtrail.amazonaws.com": "trail/*",
}


def section(site: Site) -> dict[str, Any]:
    """Return the variables of the role ``aws_storage``."""
    settings = site.settings["storage"]
    return {
        "buckets": [bucket(site, purpose) for purpose in PURPOSES],
        "replica_region": settings.get("replica_region", ""),
        "replica_role": site.name("replication", limit=64),
        "replica_policy": replication(site),
        "boundary": site.settings["identity"].get("boundary", ""),
        "tags": site.tags(),
    }


def bucket(site: Site, purpose: str) -> dict[str, Any]:
    """Return one bucket: its name, lifecycle, CORS and what it is for."""
    settings = site.settings["storage"]
    domain = site.settings["domain"].get("name")
    front = f"https://{domain}" if domain else site.settings["deploy"]["url"]
    replicated = bool(settings.get("replica_region")) and purpose in REPLICATED
    uploads = settings["browser_uploads"] or any(app.data["browser_uploads"] for app in site.manifests)
    origins = [front.rstrip("/")] if front and uploads and purpose == "data" else []
    if origins:
        origins += [f"https://{name}" for name in sorted(site.settings["domain"]["apps"].values())]
    return {
        "purpose": purpose,
        "name": site.bucket(purpose),
        "policy": {"Version": "2012-10-17", "Statement": statements(site, purpose)},
        "log_bucket": "" if purpose == "logs" else site.bucket("logs"),
        "lifecycle": lifecycle(site, purpose),
        "cors_origins": origins,
        "replica": replica(site, purpose) if replicated else {},
        "tags": site.tags(Purpose=purpose),
    }


def replica(site: Site, purpose: str) -> dict[str, Any]:
    """Return the copy of a bucket in another region."""
    name = f"{purpose}-replica"
    return {
        "name": site.bucket(name),
        "policy": {"Version": "2012-10-17", "Statement": [tls_only(site.bucket_arn(name))]},
        "tags": site.tags(Purpose=name),
    }


def replication(site: Site) -> dict[str, Any]:
    """Return what S3 may do to copy objects: read them here with their versions and tags, write them there."""
    sources = [site.bucket_arn(purpose) for purpose in REPLICATED]
    read = ["s3:GetObjectVersionForReplication", "s3:GetObjectVersionAcl", "s3:GetObjectVersionTagging"]
    write = ["s3:ReplicateObject", "s3:ReplicateDelete", "s3:ReplicateTags"]
    rows = (
        ("Buckets", ["s3:GetReplicationConfiguration", "s3:ListBucket"], sources),
        ("Read", read, [f"{arn}/*" for arn in sources]),
        ("Write", write, [site.bucket_arn(f"{purpose}-replica", "*") for purpose in REPLICATED]),
    )
    statements = [{"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": arns} for sid, actions, arns in rows]
    return {"Version": "2012-10-17", "Statement": statements}


def statements(site: Site, purpose: str) -> list[dict[str, Any]]:
    """Return a bucket's policy: TLS only, and for the bucket of logs who may write there, on behalf of this account alone."""
    arn = site.bucket_arn(purpose)
    rows: list[dict[str, Any]] = [tls_only(arn)]
    if purpose == "logs":
        own = {"StringEquals": {"aws:SourceAccount": site.account}}
        rows += [
            {
                "Sid": service.partition(".")[0].capitalize(),
                "Effect": "Allow",
                "Principal": {"Service": service},
                "Action": "s3:PutObject",
                "Resource": f"{arn}/{folder}",
                "Condition": own,
            }
            for service, folder in WRITERS.items()
        ]
        trail = {"Effect": "Allow", "Principal": {"Service": "cloudtrail.amazonaws.com"}, "Action": "s3:GetBucketAcl"}
        rows.append({"Sid": "CloudtrailAcl", **trail, "Resource": arn, "Condition": own})
    return rows


def tls_only(arn: str) -> dict[str, Any]:
    """Return the statement that refuses every request without TLS."""
    insecure = {"Bool": {"aws:SecureTransport": "false"}}
    what = {"Action": "s3:*", "Resource": [arn, f"{arn}/*"]}
    return {"Sid": "TlsOnly", "Effect": "Deny", "Principal": {"AWS": "*"}, **what, "Condition": insecure}


def lifecycle(site: Site, purpose: str) -> list[dict[str, Any]]:
    """Return a bucket's lifecycle rules as S3 takes them."""
    settings = site.settings["storage"]
    archive = settings["archive_days"]
    # Backups neither expire by their age nor go where a read takes hours: a repository needs its oldest files, such as its key, to
    # open the newest snapshot. What a manifest keeps no longer restic removes.
    moves = [{"Days": archive, "StorageClass": "STANDARD_IA"}] if purpose in REPLICATED else []
    expiry = settings["log_days"] if purpose == "logs" else None
    rule: dict[str, Any] = {
        "ID": "keep",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "NoncurrentVersionExpiration": {"NoncurrentDays": settings["keep_versions_days"]},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
    if moves:
        rule["Transitions"] = moves
    if expiry:
        rule["Expiration"] = {"Days": expiry}
    return [rule, *(app_backups(site) if purpose == "data" else [])]


def app_backups(site: Site) -> list[dict[str, Any]]:
    """Return the rules for what apps keep below ``backups/`` of their own storage: to Glacier, and gone after their manifest's days.

    A day is the least that S3 takes between a move and the end; what lives no longer than the move stays where it is.
    """
    archive = site.settings["storage"]["archive_days"]
    rules = []
    for app in site.manifests:
        days = max((row["keep_days"] for row in app.data["backup"]), default=0)
        if days and app.data["buckets"]:
            rule: dict[str, Any] = {
                "ID": f"{app.name}-backups",
                "Status": "Enabled",
                "Filter": {"Prefix": f"{app.name}/backups/"},
                "Expiration": {"Days": days},
            }
            if days > archive:
                rule["Transitions"] = [{"Days": archive, "StorageClass": "GLACIER"}]
            rules.append(rule)
    return rules
