"""Trees in and out of the store: from and to directories of the host, archives, views."""
