"""Small doses of the campaign's attacks: each defence holds, and the same attack succeeds where it is switched off."""

import pytest
from fakes_socket import short_folder
from torture import security_doors, security_files, security_plugins, security_words
from torture.row import Tier
from torture.rows.security import ROW


@pytest.fixture
def folder():
    with short_folder() as made:
        made.chmod(0o755)
        yield made


def held(attack):
    assert list(attack.broken) == []
    assert attack.tries > 0
    assert attack.control.caught, attack.control


def test_pages_and_strangers_stay_out(folder):
    """Combinations of Host, Origin and token on a real port: only the honest ones are served."""
    held(security_doors.pages(40, folder, seed=3))


def test_another_user_stays_out():
    """By the folder, and where that is open, by the kernel's word."""
    held(security_doors.other_users(1))


def test_loose_folders_are_refused(folder):
    """Folders that others can write to, links and other users' folders hold no socket."""
    held(security_doors.loose_folders(folder))


def test_hostile_names_stay_in_their_folder(folder):
    """Names that want to get out, hide, or follow a link that was put there."""
    held(security_files.hostile_names(40, folder, seed=3))


def test_hostile_models_are_refused(folder):
    """One folder of each kind; no canary sings, and a careless loader would have run or believed most of them."""
    held(security_files.model_folders(len(security_files.BAITS), folder / "m", seed=3))


def test_wrong_plugins_hurt_only_themselves(folder):
    """Raising and blocking in every hook."""
    held(security_plugins.wrong_plugins(folder))


@pytest.mark.slow
def test_secrets_and_forged_lines_stay_out_of_the_log():
    """Prompts, results, errors of every kind, a runner's death, the configuration's secrets; colours, line ends."""
    held(security_words.kept_secrets(16, crashes=1, seed=3))
    held(security_words.forged_logs())


def test_the_row_is_one():
    """It has its number and a name for the command line."""
    assert (ROW.number, ROW.name, list(Tier)) == (17, "security", ["short", "long"])
