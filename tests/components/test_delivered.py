"""Descriptions as vendors deliver them: provider files and image labels."""

import json

import pytest

from specs.delivered import taken_apart
from specs.description import DescriptionError, parse_description
from tests.components.test_description import MINIMAL

LABELS = {
    "component.1.name": "ss_lr",
    "component.1.roleList": "guest, host",
    "component.1.parameter.2.name": "tol",
    "component.1.parameter.2.type": "float",
    "component.1.parameter.10.name": "rounds",
    "component.1.parameter.10.type": "int",
    "component.1.input.1.name": "train_data",
    "component.1.input.1.categories": "dataset",
    "component.1.output.1.name": "data0",
    "component.1.output.1.category": "dataset",
    "component.1.output.1.dataFormat": "csv,json",
    "component.1.result.1.resultCode": "4444",
    "component.1.result.1.resultMessage": "failed",
}


def test_a_plain_description_stays_as_it_is() -> None:
    (only,) = taken_apart(MINIMAL)
    assert (only.info, only.image) == (MINIMAL, "")


@pytest.mark.req("A-012")
def test_a_provider_file_holds_several() -> None:
    file = {
        "name": "they",
        "version": "9",
        "metadata": {"image": "they/algo:9"},
        "components_description": {"SetCross": MINIMAL, "Other": {"title": "t"}},
    }
    first, second = taken_apart(file)
    assert (first.info, first.image) == (MINIMAL, "they/algo:9")
    assert second.info == {"provider": "they", "version": "9", "componentName": "Other", "title": "t"}


@pytest.mark.req("A-045")
def test_labels_are_a_description() -> None:
    (only,) = taken_apart({"provider": "they", "version": "1", "storageEngine": ["file"], **LABELS})
    read = parse_description(json.dumps(only.info))
    assert read.key == ("ss_lr", "they", "1")
    assert read.role_list == ("guest", "host")
    assert list(read.input_params) == ["tol", "rounds"]
    assert read.input_data["train_data"].category == "dataset"
    assert read.output_data["data0"].data_format == ("csv", "json")
    assert read.results["4444"].message == "failed"


@pytest.mark.parametrize(
    ("info", "key"),
    [
        ({"components_description": {}}, "components_description"),
        ({"components_description": {"A": 1}}, "components_description.A"),
        ({"components_description": {"A": {}}, "metadata": {"image": 7}}, "metadata.image"),
        ({"components_description": {"A": {}}, "metadata": []}, "metadata.image"),
        ({"component.0.name": "a"}, "component.0.name"),
        ({"component.1.name": 7}, "component.1.name"),
        ({"component.1.input.1": "a"}, "component.1.input.1"),
        ({"component.1.colour.1.name": "a"}, "component.1.colour.1.name"),
    ],
)
def test_unusable_deliveries_name_the_key(info: dict[str, object], key: str) -> None:
    with pytest.raises(DescriptionError) as caught:
        taken_apart(info)
    assert caught.value.key == key
