"""The data process, made from a node.toml. It loads nothing of the management plane or the database."""

from urllib.parse import urlsplit

from gateway.app.node import clock_of, log_of
from gateway.config import Config
from gateway.data_plane.io.process import DataSettings, run_data_process
from gateway.model import NodeId, ProxyAddress
from gateway.runtime.journal import FileJournal
from gateway.runtime.system import SystemEntropy


def run_data(config: Config) -> int:
    """Serve until told to stop; the exit code."""
    clock, network = clock_of(config), config.network
    settings = DataSettings(
        node_id=NodeId(config.node.node_id),
        inst_id=config.node.inst_id,
        edge_host=config.edge.host,
        streams=config.edge.streams,
        edge_port=config.edge.port,
        edge_prefix=urlsplit(config.node.address).path.rstrip("/"),
        edge_grpc=config.edge.grpc,
        edge_grpc_port=config.edge.grpc_port or None,
        tls_chain=config.key_file(config.keys.tls_chain),
        tls_key=config.key_file(config.keys.tls_key),
        platform_host=config.platform.host,
        platform_port=config.platform.port,
        one_port=config.one_port,
        platform_grpc=config.platform.grpc,
        platform_grpc_port=config.platform.grpc_port or None,
        insecure_platform_nonloopback=config.platform.insecure_allow_remote,
        run_dir=config.path(config.paths.run),
        limits=config.limits,
        strict=config.channel.strict,
        peek_keeps=config.channel.peek_keeps,
        spool_dir=config.path(config.paths.spool),
        proxy=ProxyAddress.of(network.proxy) if network.proxy else None,
        proxy_credentials={ProxyAddress.of(each.url): config.key_uri(each.credentials) for each in network.proxies},
    )
    journal = FileJournal(log_of(config, "data"), clock, process="data")
    return run_data_process(settings, journal=journal, clock=clock, entropy=SystemEntropy())
