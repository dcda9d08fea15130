"""How the command talks to a daemon: typed messages over a Unix socket.

The client is for commands that must start fast: it imports neither trio nor the vfs.
"""
