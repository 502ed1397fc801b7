"""What a job is, where it is written down, in what order it runs. Knows no model, no plugin, no socket."""
