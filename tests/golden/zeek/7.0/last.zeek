# Written by watchpost for Zeek 7.0, and written anew with every deployment.

module Watchpost;

function rotated(info: Log::RotationFmtInfo): Log::RotationPath
	{
	local opened = strftime("%Y-%m-%d-%H-%M-%S", info$open);
	local closed = strftime("%Y-%m-%d-%H-%M-%S", info$close);
	return Log::RotationPath($dir="log-queue", $file_basename=fmt("%s__%s__%s__", info$path, opened, closed));
	}

redef Log::default_rotation_postprocessor_cmd = "";

@if ( Cluster::node == "" || Cluster::local_node_type() == Cluster::LOGGER || ( Cluster::local_node_type() == Cluster::MANAGER && Cluster::manager_is_logger ) )
redef Log::rotation_format_func = rotated;
redef LogAscii::enable_leftover_log_rotation = T;
redef Log::default_rotation_interval = 3600 sec;
@endif
