"""The tables of the store: one per record of gateway.model, columns derived from the record's type hints.

`record_key` is `Record.key()`. Indexes stand for what the services select by. A change here needs a revision under
migrations/; a test compares the two.
"""

from collections.abc import Mapping
from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, MetaData, Table, Text

from gateway.model import (
    AccessToken,
    Audit,
    Component,
    Contract,
    Crl,
    Dataset,
    Decision,
    DeclaredSession,
    ExpiryNotice,
    Grant,
    GrantUse,
    Job,
    LogConsent,
    Notice,
    OutCall,
    OwnKey,
    OwnTls,
    PartnerWay,
    PeerTls,
    Project,
    Receipt,
    RelayPair,
    RevokedCert,
    Share,
    TaskView,
    TrailEntry,
    User,
)
from gateway.store.codec import KEY, Member, members

METADATA: Final = MetaData()


def _type(member: Member) -> type[Text | BigInteger | Boolean]:
    if member.base is bool:
        return Boolean
    return BigInteger if member.base is int else Text


def _table(name: str, kind: type, *indexes: tuple[str, ...]) -> Table:
    return Table(
        name,
        METADATA,
        Column(KEY, Text, primary_key=True),
        *(Column(each.name, _type(each), nullable=each.optional) for each in members(kind).values()),
        *(Index(f"ix_{name}_{'_'.join(columns)}", *columns) for columns in indexes),
    )


TABLES: Final[Mapping[type, Table]] = {
    Contract: _table("contract", Contract, ("peer_node_id", "status"), ("status",)),
    Dataset: _table("dataset", Dataset, ("public", "created", KEY), ("created", KEY)),
    Audit: _table(
        "audit",
        Audit,
        ("kind", "subject"),
        ("kind", "direction", "status"),
        ("peer_node_id", "direction", "status", "kind"),
        ("contract_id",),
        ("created", KEY),
    ),
    Grant: _table("resource_grant", Grant, ("dataset_id", "user"), ("audit_key",)),
    GrantUse: _table("grant_use", GrantUse, ("job_id",), ("grant",)),
    Project: _table("project", Project, ("created", KEY), ("initiator", "created", KEY)),
    Component: _table("component", Component, ("name",), ("enabled",)),
    Job: _table("job", Job, ("status",), ("flow_id", "created"), ("created",), ("unsure",)),
    Share: _table("share", Share, ("job_id",), ("task_id",), ("status",), ("token_digest",)),
    TaskView: _table("task_view", TaskView, ("job_id",), ("task_id",)),
    OutCall: _table(
        "out_call", OutCall, ("state", "created", KEY), ("peer_node_id", "state"), ("subject",), ("created",)
    ),
    OwnKey: _table("own_key", OwnKey, ("created",)),
    User: _table("admin_user", User),
    AccessToken: _table("access_token", AccessToken, ("user",)),
    Decision: _table("decision", Decision, ("final",)),
    Notice: _table("notice", Notice, ("state", "due"), ("created", KEY)),
    OwnTls: _table("own_tls", OwnTls, ("created",)),
    ExpiryNotice: _table("expiry_notice", ExpiryNotice),
    Crl: _table("crl", Crl, ("node_id",)),
    PeerTls: _table("peer_tls", PeerTls),
    RevokedCert: _table("revoked_cert", RevokedCert, ("ca",)),
    Receipt: _table("receipt", Receipt),
    PartnerWay: _table("partner_way", PartnerWay),
    RelayPair: _table("relay_pair", RelayPair),
    DeclaredSession: _table("declared_session", DeclaredSession),
    LogConsent: _table("log_consent", LogConsent),
    TrailEntry: _table("trail", TrailEntry, ("event", "seq")),
}
