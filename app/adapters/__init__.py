"""The only I/O: clock, disk, network, logs. Foreign errors end here."""
