"""Cases of ``benchmarks.serve``: a server as a process, clients on raw sockets."""
