"""Watched folders: from a file that holds still to a job."""
