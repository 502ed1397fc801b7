"""One module a row; each holds ``ROW``, an instance of what `torture.row.Row` describes."""
