"""No secret of the configuration is shown or repeated."""

import json

import pytest

from daemon.config.model import load
from daemon.config.withheld import WITHHELD, without_secrets
from daemon.paths import find_home
from jobs.errors import ConfigError

SECRET = "hunter2-0123456789"


def loaded(folder, text):
    (folder / "config.toml").write_text(text)
    return load(folder / "config.toml", home=find_home({"MLXD_HOME": str(folder)}), environ={"HOME": "/Users/ada"})


def test_secrets_are_not_shown(tmp_path):
    """Of a webhook the host remains, of a runner's variables the names, of a plugin's settings what is no secret."""
    config = loaded(
        tmp_path,
        f"""
        [[notify]]
        url = "https://hooks.example/services/{SECRET}?t={SECRET}"
        [[notify]]
        name = "plain"
        url = "https://hooks.example/"
        [runner]
        env = {{ HF_TOKEN = "{SECRET}" }}
        [plugins.settings.ocr]
        language = "en"
        api_key = "{SECRET}"
        [plugins.settings.ocr.inner]
        Password = ["{SECRET}"]
        """,
    )
    shown = without_secrets(config.model_dump(mode="json"))
    assert SECRET in json.dumps(config.model_dump(mode="json"))
    assert SECRET not in json.dumps(shown)
    assert [one["url"] for one in shown["notify"]] == [f"https://hooks.example/{WITHHELD}", "https://hooks.example/"]
    assert shown["runner"]["env"] == {"HF_TOKEN": WITHHELD}
    assert shown["plugins"]["settings"]["ocr"]["language"] == "en"


@pytest.mark.parametrize(
    "text",
    [
        '[[notify]]\nurl = "ftp://ada:{secret}@host/"',
        '[[notify]]\nurl = "https://ada:{secret}@host/"',
        '[[notify]]\nurl = "https://host/{secret}"\nshortcut = "x"',
        '[[notify]]\ncommand = ["{secret}"]',
        'notify = "{secret}"',
        '[runner]\nenv = "{secret}"',
        '[runner.env]\nA = ["{secret}"]',
        '[plugins]\nsettings = ["{secret}"]',
        '[plugins.settings]\nocr = "{secret}"',
    ],
)
def test_complaints_do_not_repeat_secrets(tmp_path, text):
    """A mistake is named by its key; what stood there is not, for complaints go into `health` and the log."""
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text.format(secret=SECRET))
    assert SECRET not in caught.value.message
    assert SECRET not in json.dumps(caught.value.facts)
