"""Being a service that the system starts and keeps. Plain values in; imports nothing of ours."""
