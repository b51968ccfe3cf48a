"""`evaluate --lowered`: gates held by the program that an export writes."""

import json

import pytest

from precision_search.main import main


def evaluated(study, capsys, *options):
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(study), "--json", *options])
    data = json.loads(capsys.readouterr().out)
    assert (ended.value.code == 1) == (data["verdict"] == "broken")
    return data


def values(data):
    return {(gate["metric"], gate["over"]): gate["value"] for gate in data["gates"]}


def test_the_program_keeps_what_the_exact_arithmetic_keeps(study, capsys):
    exact, lowered = (evaluated(study, capsys, option) for option in ("--exact", "--lowered"))
    assert lowered["arithmetic"] == "the lowered program, fp32 between sites"
    assert (lowered["verdict"], lowered["policy_digest"]) == (exact["verdict"], exact["policy_digest"])
    assert len(values(exact)) > 3
    assert values(lowered) == values(exact)


def test_bf16_between_sites_is_heard(study, capsys):
    whole, short = (evaluated(study, capsys, "--lowered", between) for between in ("fp32", "bf16"))
    assert short["arithmetic"] == "the lowered program, bf16 between sites"
    assert values(short) != values(whole)


def test_what_is_no_study_is_told(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(tmp_path), "--lowered"])
    assert ended.value.code == 2
    assert "holds no study" in capsys.readouterr().err
