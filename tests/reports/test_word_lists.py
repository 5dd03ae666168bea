"""The scripts that made the word lists write where the lists are read."""

import pytest

from harness.prompts.entries import DATA


@pytest.mark.parametrize("name", ["uncommon_words", "real_words"])
def test_a_script_writes_the_list_that_ships(script, name):
    module = script(f"make_{name}")

    assert module.LIST.relative_to(DATA).as_posix() == f"{name}.txt"
    assert f"made by make_{name}.py" in module.LIST.read_text(encoding="utf-8")


def test_words_that_were_read_and_taken_out_stay_out(script):
    module = script("make_uncommon_words")
    removed = {x for x in module.REMOVED.read_text().splitlines() if not x.startswith("#")}

    assert removed
    assert not removed & set(module.LIST.read_text().splitlines())
