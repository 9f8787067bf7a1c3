"""Attributes are data: ids, the label map and the CSV follow the file."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.ava import attributes
from app.ava.attributes import Profile, ProfileError, from_dict, load

WORKPLACE = attributes.DEFAULT_FILE.with_name("attributes_workplace.json")


def test_eight_attributes_and_fifty_actions_in_the_order_of_the_file(profile: Profile) -> None:
    assert profile.names == (
        "walking_behavior", "phone_usage", "social_interaction", "carrying_items", "street_behavior", "posture_gesture",
        "clothing_style", "time_context")  # fmt: skip
    assert [action.id for action in profile.actions] == list(range(1, 51))
    by_id = {action.id: action.name for action in profile.actions}
    assert (by_id[1], by_id[6], by_id[7], by_id[11], by_id[12], by_id[50]) == (
        "normal_walk", "window_shopping", "no_phone", "listening_music", "alone", "evening_stroll")  # fmt: skip
    assert "unknown" not in by_id.values()
    assert all(options[0] == "unknown" for options in profile.options.values())


def test_the_label_map_has_every_action_once(profile: Profile) -> None:
    text = profile.pbtxt()
    assert text.startswith('item {\n  name: "normal_walk"\n  id: 1\n}\n')
    found = re.findall(r'item \{\n  name: "(\w+)"\n  id: (\d+)\n\}\n', text)
    assert "".join(f'item {{\n  name: "{name}"\n  id: {number}\n}}\n' for name, number in found) == text
    assert [(name, int(number)) for name, number in found] == [(action.name, action.id) for action in profile.actions]


def test_unknown_is_never_exported(profile: Profile) -> None:
    said = profile.complete(
        {"walking_behavior": "jogging", "time_context": "rush_hour", "phone_usage": "no such thing"}
    )
    assert said["phone_usage"] == "unknown"
    assert profile.csv_rows("0.1,0.2,0.3,0.4", 7, said, "v,0003") == [
        "v,0003,0.1,0.2,0.3,0.4,5,7",
        "v,0003,0.1,0.2,0.3,0.4,45,7",
    ]
    assert profile.csv_rows("0,0,1,1", 1, profile.complete({}), "v,0003") == []
    with pytest.raises(ProfileError, match="phone_usage: 'flying'"):
        profile.action_id("phone_usage", "flying")


def test_another_profile_works_by_exchanging_the_file(tmp_path: Path) -> None:
    other = load(WORKPLACE)
    assert other.names == ("work_activity", "ppe_helmet")
    assert [action.id for action in other.actions] == list(range(1, 10))
    assert [label["name"] for label in other.cvat_labels()] == ["person"]
    assert {one["default_value"] for one in other.cvat_labels()[0]["attributes"]} == {"unknown"}
    twins = from_dict({"left": {"options": ["unknown", "up"]}, "right": {"options": ["unknown", "up", "down"]}})
    assert [action.name for action in twins.actions] == ["left_up", "right_up", "down"]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ([], "expected"),
        ({}, "expected"),
        ({"a": {"options": "unknown"}}, "attributes/a"),
        ({"a": {"options": ["x", "unknown"]}}, "the first is 'unknown'"),
        ({"a": {"options": ["unknown"]}}, "at least one more"),
        ({"a": {"options": ["unknown", "x", "x"]}}, "'x' is there twice"),
        ({"a": {"options": ["unknown", 'x"']}}, "is not allowed"),
        ({"a": {"options": ["unknown", "x,y"]}}, "is not allowed"),
        ({"a<b": {"options": ["unknown", "x"]}}, "is not allowed"),
        ({f"a{number}": {"options": ["unknown", "x"]} for number in range(65)}, "1 to 64"),
    ],
)
def test_a_wrong_profile_is_refused_with_the_place(raw: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "attributes.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(ProfileError, match=re.escape(said)):
        load(path)


def test_a_file_that_is_not_there_or_not_json(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="AVA_ATTRIBUTES"):
        load(tmp_path / "no.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ProfileError, match="not JSON"):
        load(tmp_path / "x.json")
