"""The socket: HTTP in, calls of the service out. No business rule."""
