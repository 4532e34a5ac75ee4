from pathlib import Path

import pytest

from respan_common.errors import SettingsError
from respan_orchestrator.analysis_settings import (
    MINIMAL_SETTINGS,
    apply_overrides,
    load_settings,
    read_settings,
    reference,
)

# RESPAN's template, as its program writes and reads it.
TEMPLATE = r"""
Parameters:
  input_resXY: 0.102
  input_resZ: 1
  model_resXY: 0.102
  model_resZ: 1
Analysis:
  tiles_for_prediction: (2,3,3)
  roi_volume_size: 4
  GPU_block_size: (150,500,500)
  erode_shape: (0.5,2,2)
  remove_touching_boarders: False
  validation_format: tif
  validation_scale: (1,1)
  validation_jpeg_comp: 100
  additional_logging: False
Channel1:
  restore: True
  rest_model_path: D:/Project_Data/RESPAN/CARE_models/confocal
  rest_type: ("care", 100)
Channel2:
  restore: False
  rest_model_path: None
  rest_type: ("care", 100)
Channel3:
  restore: False
  rest_model_path: None
  rest_type: ("care", 100)
Channel4:
  restore: False
  rest_model_path: None
  rest_type: ("care", 100)
SelfNet:
  model_path: D:\Project_Data\RESPAN\selfnet\model.pkl
Refinement:
  model_path: D:/Project_Data/RESPAN/refine
  model_resXY: 0.065
  model_resZ: 0.065
Vaa3D:
  path: C:/Program Files/Vaa3D_1_1_4 windows/Vaa3D-x.exe
"""


def settings_of(folder: Path, text: str):
    path = folder / "Analysis_Settings.yaml"
    path.write_text(text, encoding="utf-8")
    return read_settings(path)


def test_respans_template_is_understood_unchanged(tmp_path):
    settings = settings_of(tmp_path, TEMPLATE)
    assert (settings.input_z_um, settings.input_xy_um) == (1.0, 0.102)
    assert settings.segmentation.model_spacing_um == [1.0, 0.102, 0.102]
    assert settings.restoration.care_tiles == [2, 3, 3]
    assert settings.restored_as_tiff
    assert settings.quantification.remove_border_spines is False
    assert settings.quantification.min_dendrite_volume_um3 == 15.0


@pytest.mark.parametrize(
    "key", ["GPU_block_size", "validation_jpeg_comp", "Vaa3D", "erode_shape", "Refinement"]
)
def test_a_key_without_effect_is_reported_with_its_reason(tmp_path, key):
    notes = settings_of(tmp_path, TEMPLATE).notes
    assert any(key in note and "not applicable: " in note for note in notes)


def test_paths_of_another_computer_restore_nothing_and_say_so(tmp_path):
    settings = settings_of(tmp_path, TEMPLATE)
    assert settings.restoration.is_empty
    assert sum("another computer" in note for note in settings.notes) == 2


def test_a_missing_model_is_an_error_once_restoration_is_asked_for(tmp_path):
    ticked = TEMPLATE.replace("Parameters:", "Parameters:\n  image_restoration: True")
    with pytest.raises(SettingsError, match=r"line 20: Channel1: rest_model_path.*does not exist"):
        settings_of(tmp_path, ticked)


def test_a_missing_model_on_this_computer_is_an_error(tmp_path):
    with pytest.raises(SettingsError, match="does not exist"):
        settings_of(tmp_path, "Channel1: {restore: True, rest_model_path: /no/such/care}")


def test_models_are_found_beside_the_settings(tmp_path):
    (tmp_path / "models" / "care").mkdir(parents=True)
    (tmp_path / "self.pkl").touch()
    text = r"""
Channel2: {restore: yes, rest_model_path: 'models\care', rest_type: ("care", 100)}
SelfNet: {model_path: self.pkl}
Parameters: {neuron_channel: 2}
""".replace('("care", 100)', "care")
    settings = settings_of(tmp_path, text)
    assert settings.restoration.care_models == {2: str(tmp_path / "models/care")}
    assert settings.restoration.axial_model == str(tmp_path / "self.pkl")
    assert settings.restoration.channel == 2


def test_a_tick_turned_off_restores_nothing(tmp_path):
    (tmp_path / "self.pkl").touch()
    text = "SelfNet: {model_path: self.pkl}\nParameters: {axial_restoration: False}\n"
    assert settings_of(tmp_path, text).restoration.axial_model == ""


def test_the_neuron_channel_reaches_every_stage(tmp_path):
    settings = settings_of(tmp_path, "Parameters:\n  neuron_channel: 3\n")
    stages = (settings.restoration, settings.segmentation, settings.quantification)
    assert [stage.channel for stage in stages] == [3, 3, 3]


def test_a_stages_own_section_wins_and_says_so(tmp_path):
    text = "Parameters: {model: a}\nSegmentation: {model: b, preset: exact}\n"
    settings = settings_of(tmp_path, text)
    assert (settings.segmentation.model, settings.segmentation.preset) == ("b", "exact")
    assert "Segmentation: model overrules Parameters: model" in settings.notes


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Parameters:\n  input_resXYZ: 1\n", r"line 2: .*did you mean 'input_resXY'"),
        ("Paramters:\n  input_resXY: 1\n", r"line 2: unknown section.*did you mean 'Parameters'"),
        ("Parameters:\n  input_resXY: 0,102\n", r"line 2: .*'0,102'.*point, not a comma"),
        ("Parameters:\n  input_resXY: -1\n", r"line 2: .*positive number"),
        ("Parameters:\n  input_resXY: .inf\n", r"line 2: .*positive number"),
        ("Parameters:\n  input_resXY: None\n", r"line 2: .*positive number"),
        ("Parameters:\n  neuron_channel: 0\n", r"line 2: .*counted from 1"),
        ("Parameters:\n  neuron_channel: yes\n", r"line 2: .*counted from 1"),
        ("Parameters:\n  axes: ZXX\n", r"line 2: .*ZCYX"),
        ("Parameters:\n  voxel_size_from: metadata\n", r"line 2: .*settings or file"),
        ("Parameters:\n  model_resZ: 1\n", r"line 2: .*needed together"),
        ("Parameters:\n  axial_restoration: True\n", r"line 2: .*names no checkpoint"),
        ("Parameters: 3\n", r"line 1: .*'key: value'"),
        ("Analysis:\n  tiles_for_prediction: (2,3)\n", r"line 2: .*three whole numbers"),
        ("Analysis:\n  tiles_for_prediction: (2,3,\n", r"line 2: .*a list like"),
        ("Analysis:\n  remove_touching_boarders: perhaps\n", r"line 2: .*True or False"),
        ("Channel1:\n  rest_type: ('n2v', 1)\n", r"line 2: .*CARE is the only kind"),
        ("Channel1:\n  restore: True\n", r"line 2: .*names no CARE model"),
        ("Segmentation:\n  preset: slow\n", r"line 2: .*'slow'.*'fast' or 'exact'"),
        ("Segmentation:\n  stepsize: 1\n", r"line 2: .*did you mean 'step_size'"),
        ("Segmentation:\n  step_size: True\n", r"line 2: .*not True or False"),
        ("Segmentation:\n  label_scheme: 9\n", r"line 2: .*less than or equal to 4"),
        ("Quantification:\n  max_spine_volume_um3: 0.01\n", r"line 2: .*must be smaller than"),
        ("Quantification:\n  max_neck_length_um: .nan\n", r"line 2: .*finite"),
        ("Parameters:\n  input_resXY: 1\n  input_resXY: 2\n", r"line 3: .*already set in line 2"),
        ("Parameters:\n\tinput_resXY: 1\n", r"line 2: not valid YAML.*not with tabs"),
        ('Vaa3D:\n  path: "C:\\Users\\me"\n', r"line 2: not valid YAML.*single quotes"),
        ("Parameters: [1, 2\n", r"line 2: not valid YAML"),
        ("- 1\n- 2\n", r"line 1: the file must consist of 'key: value' lines"),
        ("just words\n", r"line 1: the file must consist"),
        ("a: 1\n---\nb: 2\n", r"not valid YAML"),
        ("Parameters:\n  input_resXY: \x00\n", r"not a text file"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path, text, complaint):
    with pytest.raises(SettingsError, match=rf"(?s)Analysis_Settings.yaml.*{complaint}"):
        settings_of(tmp_path, text)


def test_all_problems_are_reported_together(tmp_path):
    text = "Parameters:\n  inputresXY: 1\n  input_resZ: x\nSegmentation:\n  preset: slow\n"
    with pytest.raises(SettingsError) as error:
        settings_of(tmp_path, text)
    assert "has 3 problems" in str(error.value)
    assert [f"line {line}" in str(error.value) for line in (2, 3, 5)] == [True] * 3


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "Parameters:\n", "Parameters: None\n"])
def test_an_empty_file_or_section_means_the_defaults(tmp_path, text):
    assert settings_of(tmp_path, text).quantification.min_spine_volume_um3 == 0.03


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_encodings_of_windows_editors_are_read(tmp_path, encoding):
    path = tmp_path / "Analysis_Settings.yml"
    path.write_bytes("Parameters:\r\n  input_resXY: 0.2 # µm\r\n".encode(encoding))
    assert read_settings(path).input_xy_um == 0.2


@pytest.mark.parametrize("name", ["Analysis_Settings.yml", "Analysis_Settings.yaml"])
def test_both_names_of_the_file_are_found(tmp_path, name):
    (tmp_path / name).write_text(MINIMAL_SETTINGS, encoding="utf-8")
    assert load_settings(tmp_path).source.name == name


def test_two_files_that_differ_are_an_error(tmp_path):
    (tmp_path / "Analysis_Settings.yml").write_text("Parameters: {input_resZ: 1}")
    (tmp_path / "Analysis_Settings.yaml").write_text("Parameters: {input_resZ: 1}")
    assert load_settings(tmp_path).input_z_um == 1.0
    (tmp_path / "Analysis_Settings.yml").write_text("Parameters: {input_resZ: 2}")
    with pytest.raises(SettingsError, match="they differ"):
        load_settings(tmp_path)


def test_no_settings_shows_what_to_write(tmp_path):
    with pytest.raises(SettingsError, match=r"(?s)neither.*input_resXY: 0\.102"):
        load_settings(tmp_path)


def test_the_parents_settings_stand_in_for_missing_ones(tmp_path):
    (tmp_path / "a").mkdir()
    settings_of(tmp_path, "Parameters: {input_resZ: 7}")
    assert load_settings(tmp_path / "a", fallback=tmp_path).input_z_um == 7.0


def test_overrides_win_over_the_file(tmp_path):
    settings = settings_of(tmp_path, "Segmentation: {preset: fast, channel: 1}")
    changed = apply_overrides(
        settings,
        [
            "segmentation.preset=exact",
            "parameters.neuron_channel=2",
            "restoration.care_tiles=(1,2,2)",
            "quantification.max_neck_length_um=2.5",
            "segmentation.model=C:\\models: mine",
        ],
    )
    assert (changed.segmentation.preset, changed.segmentation.channel) == ("exact", 2)
    assert changed.restoration.care_tiles == [1, 2, 2]
    assert changed.quantification.max_neck_length_um == 2.5
    assert changed.segmentation.model == "C:\\models: mine"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("precision", "full", "full"),
        ("skip_empty", "False", False),
        ("spine_threshold", "0.4", 0.4),
        ("probabilities", "True", True),
        ("uncertainty", "True", True),
        ("refinement_model", "mine", "mine"),
        ("refinement_margin_um", "1", 1.0),
        ("step_size", "None", None),
    ],
)
def test_parameters_of_segmentation_are_keys_of_file_and_command_line(tmp_path, key, text, value):
    settings = settings_of(tmp_path, f"Segmentation:\n  {key}: {text}\n")
    option = apply_overrides(settings_of(tmp_path, ""), [f"segmentation.{key}={text}"])
    assert getattr(settings.segmentation, key) == getattr(option.segmentation, key) == value


def test_a_refinement_model_in_a_folder_may_be_opened_by_services(tmp_path):
    (tmp_path / "again").mkdir()
    settings = settings_of(tmp_path, "Segmentation:\n  refinement_model: ./again\n")
    assert settings.segmentation.refinement_model == str(tmp_path / "again")
    assert settings.model_folders == [tmp_path / "again"]


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("segmentation.spine_threshold=2", "spine_threshold.*less than or equal to 1"),
        ("segmentation.precision=double", "'half', 'full' or 'nnunet'"),
        ("segmentation.probabilities=7", "probabilities"),
        ("segmentation.preset", "write it as stage.key=value"),
        ("preset=fast", "write it as stage.key=value"),
        ("segmentatoin.preset=fast", "did you mean 'segmentation'"),
        ("segmentation.prest=fast", "did you mean 'preset'"),
        ("segmentation.preset=slow", "'fast' or 'exact'"),
        ("quantification.min_spine_volume_um3=99", "must be smaller than"),
    ],
)
def test_a_bad_override_is_refused(tmp_path, option, complaint):
    with pytest.raises(SettingsError, match=complaint):
        apply_overrides(settings_of(tmp_path, ""), [option])


def test_settings_survive_json(tmp_path):
    settings = settings_of(tmp_path, TEMPLATE)
    assert type(settings).model_validate_json(settings.model_dump_json()) == settings


def test_additional_data_means_volumes_meshes_and_distances(tmp_path):
    settings = settings_of(tmp_path, "Analysis:\n  additional_data: True\n")
    assert settings.validation_volumes
    assert settings.quantification.meshes
    assert settings.quantification.distance_maps
    less = apply_overrides(settings, ["analysis.validation_volumes=False"])
    assert not less.validation_volumes
    assert less.quantification.meshes


def test_the_key_reference_in_the_docs_is_current():
    page = Path(__file__).parents[3] / "docs" / "settings.md"
    assert page.read_text(encoding="utf-8").endswith(reference())
