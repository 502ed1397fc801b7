"""``python -I -m daemon`` is the same as ``mlxd``."""

from daemon.cli.main import main

if __name__ == "__main__":
    main()
