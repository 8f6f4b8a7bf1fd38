# Written by watchpost for Zeek 7.2, and written anew with every deployment.

redef Cluster::manager_is_logger = F;
redef Cluster::nodes = {
	["manager"] = [$node_type=Cluster::MANAGER, $ip=10.0.0.1, $p=27760/tcp, $metrics_port=9991/tcp],
	["logger-1"] = [$node_type=Cluster::LOGGER, $ip=10.0.0.1, $p=27761/tcp, $metrics_port=9992/tcp],
	["logger-2"] = [$node_type=Cluster::LOGGER, $ip=[fd00::2], $p=27763/tcp, $metrics_port=9991/tcp],
	["proxy-1"] = [$node_type=Cluster::PROXY, $ip=10.0.0.1, $p=27762/tcp, $manager="manager", $metrics_port=9993/tcp],
	["proxy-2"] = [$node_type=Cluster::PROXY, $ip=[fd00::2], $p=27764/tcp, $manager="manager", $metrics_port=9992/tcp],
	["worker-1"] = [$node_type=Cluster::WORKER, $ip=10.0.0.1, $manager="manager", $metrics_port=9994/tcp],
	["worker-2"] = [$node_type=Cluster::WORKER, $ip=10.0.0.1, $manager="manager", $metrics_port=9995/tcp],
	["worker-3"] = [$node_type=Cluster::WORKER, $ip=10.0.0.1, $manager="manager", $metrics_port=9996/tcp],
	["worker-4"] = [$node_type=Cluster::WORKER, $ip=[fd00::2], $manager="manager", $metrics_port=9993/tcp],
	["worker-5"] = [$node_type=Cluster::WORKER, $ip=[fd00::2], $manager="manager", $metrics_port=9994/tcp],
	["worker-6"] = [$node_type=Cluster::WORKER, $ip=[fd00::2], $manager="manager", $metrics_port=9995/tcp],
	["worker-7"] = [$node_type=Cluster::WORKER, $ip=[fd00::2], $manager="manager", $metrics_port=9996/tcp],
};
