"""The configuration: TOML in, frozen values out."""
