# Written by watchpost for Zeek 8.0, and written anew with every deployment.

redef global_hash_seed = "8f2c11d0";
redef Pcap::snaplen = 9216;
redef Pcap::bufsize = 128;
@ifdef ( Telemetry::metrics_address )
redef Telemetry::metrics_address = "127.0.0.1";
@endif
@ifdef ( Site::local_nets )
redef Site::local_nets += {
	10.0.0.0/8,
	[fd00::]/8,
};
@endif
