# Written by watchpost for Zeek 8.2, and written anew with every deployment.

redef Cluster::manager_is_logger = F;
redef Cluster::nodes = {
	["manager"] = [$node_type=Cluster::MANAGER, $ip=127.0.0.1, $p=27760/tcp, $metrics_port=9991/tcp],
	["logger"] = [$node_type=Cluster::LOGGER, $ip=127.0.0.1, $p=27761/tcp, $metrics_port=9992/tcp],
	["worker-1"] = [$node_type=Cluster::WORKER, $ip=127.0.0.1, $manager="manager", $metrics_port=9993/tcp],
};
