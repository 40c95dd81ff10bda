"""The table of quantities: every key says its unit."""

import re

from fedens.analysis.quantities import QUANTITIES


def in_key(unit):
    """A unit as it stands at the end of a key."""
    words = {"%": "percent", "D": "debye", "s": "seconds", "MiB": "mebibytes"}
    first, _, rest = words.get(unit, unit).lower().replace(" ", "_").partition("/")
    return f"{first}_per_{rest.replace('/', '_')}" if rest else first


def test_units_are_those_that_the_keys_say():
    """Keys of energies and forces of reference points, and of strains, say none."""
    silent = "(energy|force)_error(_spread)?|net_force|egg_box|seconds_per_epoch|r3_strain|"
    for key, (label, unit) in QUANTITIES.items():
        assert label, key
        if not re.fullmatch(f"{silent}geometry|largest", key):
            assert key.endswith(f"_{in_key(unit)}") if unit else "_per_" not in key, key
    assert QUANTITIES["nmape_percent"] == ("density error (NMAPE)", "%")
    assert QUANTITIES["force_error"].unit == QUANTITIES["net_force"].unit == "meV/angstrom"
    assert QUANTITIES["energy_error"].unit == QUANTITIES["egg_box"].unit == "meV/atom"
