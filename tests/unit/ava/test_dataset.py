"""The dataset: AVA's form to the letter, consensus, splits; a perfect score against itself by the published measure."""

import csv
import hashlib
import io
import pickle
from collections import defaultdict

import numpy as np
import pytest

from app.ava.attributes import Profile
from app.ava.boxes import Box
from app.ava.consensus import merge
from app.ava.dataset_generator import Options, Source, generate, split_videos
from app.ava.proposals import read_proposals

from .conftest import SIZE, box


def person(track: int, left: float, frames: int = 4, **said: str) -> list[Box]:
    return [box(track, frame, left, **said) for frame in range(frames)]


def rows(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode())))


def mean_average_precision(truth: bytes, found: bytes) -> float:
    """Frame-mAP at IoU 0.5 (Gu et al. 2018, "AVA"; average precision as in PASCAL VOC 2010: the area below the precision envelope).

    For each class, detections by falling score; one is right when its best IoU with a not yet found box of its frame is at least 0.5.
    """
    boxes: dict[str, dict[tuple[str, str], list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    for row in rows(truth):
        boxes[row[6]][row[0], row[1]].append(np.array(row[2:6], dtype=float))
    detections: dict[str, list[tuple[tuple[str, str], np.ndarray]]] = defaultdict(list)
    for row in rows(found):
        detections[row[6]].append(((row[0], row[1]), np.array(row[2:6], dtype=float)))
    precisions = []
    for label, frames in boxes.items():
        used = {key: [False] * len(its) for key, its in frames.items()}
        right = []
        for key, one in detections[label]:
            best, place = 0.0, -1
            for number, other in enumerate(frames.get(key, [])):
                sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
                shared = float(np.prod(np.clip(sides, 0, None)))
                union = float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])) - shared
                if shared / union > best:
                    best, place = shared / union, number
            hit = best >= 0.5 and not used[key][place]
            if hit:
                used[key][place] = True
            right.append(hit)
        total = sum(map(len, frames.values()))
        hits = np.cumsum(right)
        recall, precision = hits / total, hits / np.arange(1, len(right) + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        precisions.append(float(np.sum(np.diff(np.concatenate([[0.0], recall])) * envelope)))
    return float(np.mean(precisions))


def two_clips() -> list[Source]:
    first = person(0, 100, walking_behavior="jogging", phone_usage="texting") + person(
        1, 700, walking_behavior="normal_walk"
    )
    second = person(5, 400, time_context="rush_hour") + person(6, 900)
    return [Source("a_clip_001", [first], SIZE), Source("b_clip_000", [second], SIZE)]


def test_rows_are_avas(profile: Profile) -> None:
    made = generate(two_clips(), profile)
    found = rows(made.files["annotations.csv"])
    assert found[0] == ["a", "0015", "0.078125", "0.138889", "0.156250", "0.416667", "5", "1"]
    assert {len(row) for row in found} == {8}
    assert len(found) == 4 * (2 + 1) + 4
    assert {(row[0], int(row[1])) for row in found} == {("a", 15 + n) for n in range(4)} | {("b", n) for n in range(4)}
    assert {(row[6], row[7]) for row in found if row[0] == "a"} == {("5", "1"), ("9", "1"), ("1", "2")}
    texts = defaultdict(set)
    for row in found:
        texts[row[0], row[1], row[7]].add(tuple(row[2:6]))
    assert {len(one) for one in texts.values()} == {1}
    assert made.manifest["boxes"] == 16
    assert made.manifest["unlabelled_boxes"] == 4
    assert b"person" not in made.files["annotations.csv"]
    assert {row["id"]: row["rows"] for row in made.manifest["classes"] if row["rows"]} == {1: 4, 5: 4, 9: 4, 45: 4}


def test_it_scores_one_against_itself_and_less_against_another(profile: Profile) -> None:
    made = generate(two_clips(), profile).files["annotations.csv"]
    assert mean_average_precision(made, made) == 1.0
    lines = made.decode().splitlines(keepends=True)
    half = "".join(lines[::2]).encode()
    assert mean_average_precision(made, half) < 0.8
    away = made.replace(b"0.078125", b"0.150000")
    assert mean_average_precision(made, away) < 1.0


def test_hashes_and_bytes_are_the_files_and_the_same_again(profile: Profile) -> None:
    made, again = generate(two_clips(), profile), generate(two_clips()[::-1], profile)
    assert made.files == again.files
    assert set(made.manifest["files"]) == set(made.files) - {"manifest.json"}
    for name, told in made.manifest["files"].items():
        assert told == {"bytes": len(made.files[name]), "sha256": hashlib.sha256(made.files[name]).hexdigest()}
    assert made.files["actions.pbtxt"].decode() == profile.pbtxt()


def test_dense_proposals_are_read_back_by_the_restricted_reader(profile: Profile) -> None:
    made = generate(two_clips(), profile)
    again = read_proposals(made.files["dense_proposals.pkl"], {}, SIZE)
    assert again.boxes == 16
    assert sorted(again.clips) == ["a_clip_001", "b_clip_000"]
    table = pickle.loads(made.files["dense_proposals.pkl"])  # noqa: S301 - made right here
    assert table["a,0015"].shape == (2, 5)


def test_excluded_timestamps_have_no_rows(profile: Profile) -> None:
    made = generate(two_clips(), profile, Options(excluded=frozenset({("a", 16), ("b", 0), ("c", 3)})))
    found = rows(made.files["annotations.csv"])
    assert not {("a", "0016"), ("b", "0000")} & {(row[0], row[1]) for row in found}
    assert made.manifest["left_out"]["excluded_timestamps"] == 4
    told = made.files["train_excluded_timestamps.csv"] + made.files["val_excluded_timestamps.csv"]
    assert sorted(told.decode().split()) == ["a,0016", "b,0000"]


def test_videos_are_never_in_two_parts(profile: Profile) -> None:
    sources = [
        Source(f"v{video}_clip_{number:03d}", [person(0, 100, phone_usage="texting")], SIZE)
        for video in range(10)
        for number in range(3)
    ]
    for ids in ("video", "clip"):
        made = generate(sources, profile, Options(val_share=0.3, seed=5, video_ids=ids))  # type: ignore[arg-type]
        parts = {
            name: {row[0].partition("_clip_")[0] for row in rows(made.files[f"{name}.csv"])}
            for name in ("train", "val")
        }
        assert not parts["train"] & parts["val"]
        assert (len(parts["train"]), len(parts["val"])) == (7, 3)
    assert rows(made.files["annotations.csv"])[0][:2] == ["v0_clip_000", "0000"]


@pytest.mark.parametrize(("share", "sizes"), [(0.0, (4, 0)), (0.01, (3, 1)), (0.5, (2, 2)), (1.0, (1, 3))])
def test_shares_of_the_split(share: float, sizes: tuple[int, int]) -> None:
    parts = split_videos({name: name for name in "abcd"}, share, 0)
    assert (len(parts["train"]), len(parts["val"])) == sizes
    assert split_videos({"a": "a"}, 0.2, 0) == {"train": ["a"], "val": []}


def test_consensus_averages_boxes_and_votes_on_words(profile: Profile) -> None:
    shifts, words = (-6.0, 0.0, 9.0), ("jogging", "jogging", "fast_walk")
    merged = merge(
        [
            person(7 + n, 100 + shift, walking_behavior=word)
            for n, (shift, word) in enumerate(zip(shifts, words, strict=True))
        ],
        profile,
    )
    assert len(merged.boxes) == 4
    assert {one.xtl for one in merged.boxes} == {101.0}
    assert {one.attributes["walking_behavior"] for one in merged.boxes} == {"jogging"}
    assert merged.ties == []


def test_a_tie_is_sent_to_review_and_not_exported(profile: Profile) -> None:
    ours, theirs = (
        person(0, 100, phone_usage="texting", walking_behavior="jogging"),
        person(0, 102, phone_usage="no_phone"),
    )
    merged = merge([ours, theirs], profile)
    assert {one.attributes["phone_usage"] for one in merged.boxes} == {"unknown"}
    assert {one.attributes["walking_behavior"] for one in merged.boxes} == {"jogging"}  # the other one said nothing
    assert len(merged.ties) == 4
    made = generate([Source("a_clip_000", [ours, theirs], SIZE)], profile)
    assert made.manifest["ties_for_review"] == 4
    review = rows(made.files["review.csv"])
    assert review[0] == ["video_id", "timestamp", "person_id", "attribute", "votes"]
    assert review[1] == ["a", "0000", "1", "phone_usage", "no_phone=1 texting=1"]
    assert {row[6] for row in rows(made.files["annotations.csv"])} == {"5"}


def test_what_one_of_three_drew_is_left_out_and_of_two_is_kept(profile: Profile) -> None:
    ours = person(0, 100) + person(1, 900)
    assert len(merge([ours, person(0, 100)], profile).boxes) == 8
    merged = merge([ours, person(0, 100), person(3, 100)], profile)
    assert (len(merged.boxes), merged.alone) == (4, 4)


def test_persons_go_on_through_gaps_and_swapped_numbers(profile: Profile) -> None:
    ours = person(0, 100, 8) + person(1, 700, 8)
    swapped = [
        Box(1 - one.track if one.frame >= 4 else one.track, *(one.frame, *one.corners), one.attributes) for one in ours
    ]
    for annotators in (
        [ours, swapped],
        [ours, ours, swapped],
        [ours, [one for one in ours if one.frame not in {2, 3}]],
    ):
        merged = merge(annotators, profile)
        by_person = defaultdict(set)
        for one in merged.boxes:
            by_person[one.track].add(one.xtl)
        assert sorted(map(sorted, by_person.values())) == [[100.0], [700.0]]


def test_boxes_without_an_area_are_left_out_and_counted(profile: Profile) -> None:
    flat = [
        Box(0, 0, 100, 100, 100.0001, 300, {"phone_usage": "texting"}),
        Box(1, 0, -50, 10, 2000, 400, {"phone_usage": "texting"}),
    ]
    made = generate([Source("a_clip_000", [flat], SIZE)], profile)
    assert made.manifest["left_out"]["without_area"] == 1
    assert rows(made.files["annotations.csv"]) == [
        ["a", "0000", "0.000000", "0.013889", "1.000000", "0.555556", "9", "1"]
    ]
