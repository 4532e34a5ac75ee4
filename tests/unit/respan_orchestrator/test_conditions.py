import pytest

from respan_common.errors import SettingsError
from respan_orchestrator.conditions import read_conditions
from respan_orchestrator.experiment import scan_experiment


@pytest.fixture
def experiment(tmp_path):
    for name in ("Animal_A/d0.tif", "Animal_A/d1.tif", "Animal_B/d0.ome.tif"):
        path = tmp_path / "Experiment" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return scan_experiment(tmp_path / "Experiment")


def said(experiment, text, name="conditions.csv", encoding="utf-8", reserved=()):
    (experiment.path / name).write_bytes(text.encode(encoding))
    return read_conditions(experiment, reserved)


def test_without_a_file_the_condition_is_the_folders_name(experiment):
    found = read_conditions(experiment)
    assert found.columns == ("condition",)
    assert found.labels("Animal_A", "d0") == {"condition": "Animal_A"}


def test_labels_of_a_sub_folder_are_those_of_its_images(experiment):
    found = said(experiment, "sub_folder,condition,animal\nAnimal_A,control,7\n\nAnimal_B,drug,8\n")
    assert found.columns == ("condition", "animal")
    assert found.labels("Animal_A", "d1") == {"condition": "control", "animal": "7"}
    assert found.labels("Animal_B", "d0") == {"condition": "drug", "animal": "8"}


def test_a_row_of_an_image_wins_where_it_says_something(experiment):
    text = "sub_folder,image,condition,animal\nAnimal_A,,control,7\nAnimal_A,d1.tif,,9\n"
    found = said(experiment, text)
    assert found.labels("Animal_A", "d0") == {"condition": "control", "animal": "7"}
    assert found.labels("Animal_A", "d1") == {"condition": "control", "animal": "9"}


def test_a_folder_that_is_not_mentioned_keeps_its_name_as_condition(experiment):
    found = said(experiment, "sub_folder,animal\nAnimal_A,7\n")
    assert found.labels("Animal_B", "d0") == {"condition": "Animal_B", "animal": ""}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_spreadsheets_write_is_read(experiment, encoding, separator):
    text = "Sub_Folder,Group\r\nAnimal_A,Ä\r\nAnimal_B,b\r\n,\r\n".replace(",", separator)
    assert said(experiment, text, "Conditions.csv", encoding).labels("Animal_A", "d0") == {
        "condition": "Animal_A",
        "Group": "Ä",
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("sub_folder,x\nAnimal_X,1\n", "line 2: sub_folder 'Animal_X': .*did you mean 'Animal_"),
        ("sub_folder,image\nAnimal_A,d7\n", "line 2: image 'd7' of Animal_A: .*allowed: d0, d1"),
        (
            "sub_folder,x\nAnimal_A,1\nAnimal_A,2\n",
            "line 3: sub_folder 'Animal_A' is already in line 2",
        ),
        (
            "sub_folder,image\nAnimal_A,d0\n\nAnimal_A,d0.tif\n",
            "line 4: image 'd0' of Animal_A is already in line 2",
        ),
        ("sub_folder,x\n,1\n", "line 2: sub_folder '': it is empty"),
        ("folder,x\nAnimal_A,1\n", "line 1: the header has no column sub_folder; it has folder, x"),
        ("sub_folder,x,x\nAnimal_A,1,2\n", "line 1: the column 'x' is there twice"),
        ("sub_folder,,x\nAnimal_A,1,2\n", "line 1: column 2 has no name"),
        ("sub_folder,spines\nAnimal_A,1\n", "line 1: a column may not be called 'spines'"),
        ("sub_folder,x\nAnimal_A,1,2\n", "line 2: '2' is beyond the 2 columns of the header"),
        ('sub_folder,x\nAnimal_A,"1\n', "not valid CSV"),
        ("", "is empty"),
    ],
)
def test_what_is_wrong_is_said_with_file_line_and_value(experiment, text, complaint):
    with pytest.raises(SettingsError, match=complaint) as caught:
        said(experiment, text, reserved=["spines"])
    assert "conditions.csv" in str(caught.value)


def test_all_problems_are_listed_at_once(experiment):
    with pytest.raises(SettingsError, match="2 problems") as caught:
        said(experiment, "sub_folder\nNobody\nAnimal_A\nNothing\n")
    assert "line 2" in str(caught.value)
    assert "line 4" in str(caught.value)


def test_two_files_are_one_too_many(experiment):
    (experiment.path / "Conditions.CSV").write_text("sub_folder\n")
    with pytest.raises(SettingsError, match="delete or rename all but one"):
        said(experiment, "sub_folder\n")


def test_a_single_folder_may_have_labels_of_its_images(tmp_path):
    (tmp_path / "d0.tif").touch()
    experiment = scan_experiment(tmp_path)
    text = f"sub_folder,image,condition\n{tmp_path.name},d0,drug\n"
    assert said(experiment, text).labels(tmp_path.name, "d0") == {"condition": "drug"}
