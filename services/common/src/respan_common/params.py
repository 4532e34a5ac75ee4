"""Parameters of every stage: what a colleague would have to report in a methods section.

The only home of defaults. What only changes where or how fast a process runs is a setting
(`settings`). Lengths are µm, volumes µm³; channels count from 1, as microscopists do.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Fraction = Annotated[float, Field(ge=0, le=1)]
Step = Annotated[float, Field(gt=0, le=1)]
Three = Annotated[list[PositiveInt], Field(min_length=3, max_length=3)]
SpacingZyx = Annotated[list[PositiveFloat], Field(min_length=3, max_length=3)]


class StageParams(BaseModel):
    """Immutable, and rejects names it does not know, so a typo cannot pass silently."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


class RestorationParams(StageParams):
    """Parameters of the restoration stage: CARE per channel, then Self-Net on one channel."""

    care_models: dict[PositiveInt, str] = Field(default_factory=dict)
    """CARE model folder (csbdeep format) for each channel to restore."""
    care_tiles: Three = Field(default_factory=lambda: [1, 1, 1])
    """Least number of tiles (z, y, x) that CARE cuts a volume into."""
    axial_model: str = ""
    """Self-Net checkpoint (.pkl) for axial restoration of `channel`; empty: none."""
    axial_min_intensity: NonNegativeFloat = 0.0
    """Grey value that Self-Net sees as 0."""
    axial_max_intensity: PositiveFloat = 65535.0
    """Grey value that Self-Net sees as 1."""
    channel: PositiveInt = 1
    """The neuron's channel."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be restored."""
        return not self.care_models and not self.axial_model


class SegmentationParams(StageParams):
    """Parameters of the segmentation stage."""

    model: str = ""
    """nnU-Net v2 model folder. Empty is allowed only before the orchestrator has chosen one."""
    channel: PositiveInt = 1
    """The channel to segment."""
    preset: Literal["fast", "exact"] = "fast"
    """fast: wide steps, no mirroring, half precision, empty tiles skipped. exact: nnU-Net's own
    default (step 0.5, mirroring, its precision, every tile)."""
    step_size: Step | None = None
    """Step between patches as a share of the patch; absent: the preset's."""
    mirroring: bool | None = None
    """Average over mirrored inputs, if the model was trained for it; absent: the preset's."""
    precision: Literal["half", "full", "nnunet"] | None = None
    """Arithmetic: half precision where the device has it; full (32 bits); nnunet: full on
    processors, half on GPUs. Absent: the preset's."""
    skip_empty: bool | None = None
    """Do not predict tiles that hold nothing but background, by the image's own background; absent:
    the preset's. The result says what share was skipped."""
    spine_threshold: Fraction | None = None
    """Least probability of a spine's voxel (spine, neck, core and membrane together). Absent: the
    model's own operating point; without one the most probable class wins."""
    probabilities: bool = False
    """Keep an image with each class's probability."""
    uncertainty: bool = False
    """Keep an image of the model's doubt: entropy, and where several folds or mirrored inputs are
    averaged, how much they disagree."""
    refinement_model: str = ""
    """nnU-Net v2 model folder that looks again at each spine; empty: none."""
    refinement_margin_um: NonNegativeFloat = 0.5
    """Surroundings of a spine that the refinement model sees, on every side."""
    label_scheme: Annotated[int, Field(ge=1, le=4)] | None = None
    """RESPAN's model type 1-4, for models whose label names say nothing."""
    model_spacing_um: SpacingZyx | None = None
    """Voxel size (z, y, x) the model was trained at, for models whose plans say 1, 1, 1."""

    @property
    def step(self) -> float:
        """The step size that applies."""
        return (
            self.step_size
            if self.step_size is not None
            else {"fast": 0.75, "exact": 0.5}[self.preset]
        )

    @property
    def mirrors(self) -> bool:
        """Whether mirroring applies."""
        return self.mirroring if self.mirroring is not None else self.preset == "exact"

    @property
    def arithmetic(self) -> Literal["half", "full", "nnunet"]:
        """The precision that applies."""
        return self.precision or ("half" if self.preset == "fast" else "nnunet")

    @property
    def skips_empty(self) -> bool:
        """Whether empty tiles are skipped."""
        return self.skip_empty if self.skip_empty is not None else self.preset == "fast"


class QuantificationParams(StageParams):
    """Parameters of the quantification stage."""

    channel: PositiveInt = 1
    """The neuron's channel: guides necks that the model did not see, and tells dim dendrites."""
    min_dendrite_volume_um3: NonNegativeFloat = 15.0
    """Dendrite components smaller than this are discarded; RESPAN's default."""
    min_dendrite_brightness: Fraction = 0.0
    """Dendrites dimmer than this share of the dendrites' mean brightness are discarded, as passing
    axons are; brightness is above the background and in the neuron's channel."""
    min_soma_volume_um3: NonNegativeFloat = 0.0
    """Soma components smaller than this are none, and count as dendrite: a model may take the
    thickest piece of a shaft for one."""
    min_spine_volume_um3: NonNegativeFloat = 0.03
    """Spines (head and predicted membrane) smaller than this are discarded; RESPAN's default."""
    max_spine_volume_um3: PositiveFloat = 15.0
    """Spines larger than this are discarded; RESPAN's default."""
    max_spine_distance_um: PositiveFloat = 4.0
    """Spines whose nearest voxel is farther than this from a dendrite's surface are discarded."""
    min_spine_confidence: Fraction = 0.0
    """Spines of which segmentation is less sure (column `confidence`) are discarded; of labels made
    elsewhere nothing is known, so none are."""
    remove_border_spines: bool = False
    """Discard spines that touch the image's faces in y or x (z faces are flagged, not removed)."""
    spine_splitting: Literal["seeded", "connected"] = "seeded"
    """seeded: touching spines are cut at their waist, or where the image darkens between them;
    connected: they count as one object."""
    split_merge_depth_um: NonNegativeFloat = 0.06
    """A waist shallower than this is not a waist: the two parts stay one spine."""
    generate_necks: bool = True
    """Find a path to the dendrite for spines whose neck the model did not see."""
    max_neck_length_um: PositiveFloat = 4.0
    """Longest neck that is inferred."""
    split_heads: bool = True
    """Find head and neck from the spine's own thickness where the model has no neck class."""
    resolution_um: SpacingZyx | None = None
    """The microscope's resolution (z, y, x), full width at half maximum; what is thinner is
    flagged. Absent: two voxels."""
    density_window_um: PositiveFloat = 10.0
    """Stretch of dendrite around a spine in which its local density counts."""
    sholl_step_um: PositiveFloat = 10.0
    """Distance between the spheres of the Sholl analysis."""
    meshes: bool = False
    """Keep the mesh of every spine, head and neck."""
    distance_maps: bool = False
    """Keep images of the distance to the dendrite and along it."""

    @model_validator(mode="after")
    def _volumes_in_order(self) -> QuantificationParams:
        if self.min_spine_volume_um3 >= self.max_spine_volume_um3:
            raise ValueError(
                f"min_spine_volume_um3 ({self.min_spine_volume_um3}) must be smaller than "
                f"max_spine_volume_um3 ({self.max_spine_volume_um3})"
            )
        return self


Snr = Literal["easy", "typical", "hard", "extreme"]


class SynthesisParams(StageParams):
    """Parameters of phantom volumes."""

    kind: Literal["confocal", "two-photon"] = "confocal"
    """Microscope whose optics, noise and voxel size are imitated."""
    images: PositiveInt = 1
    """Number of volumes."""
    shape: Three | None = None
    """Voxels (z, y, x); absent: the kind's own."""
    spacing_um: SpacingZyx | None = None
    """Voxel size (z, y, x); absent: the kind's own."""
    channels: PositiveInt = 1
    """Channels; the first is the neuron, others are labels inside spines."""
    timepoints: PositiveInt = 1
    """Time points. Only 1 is built so far."""
    snr: Snr | Literal["mixed"] = "typical"
    """Photons at a spine head: easy 100, typical 50, hard 15, extreme 5; mixed: any, per volume."""
    seed: NonNegativeInt = 0
    """The same seed gives the same volumes."""
    label_scheme: Literal[1, 2, 3, 4] = 3
    """RESPAN's model type whose classes the labels have."""
    meshes: bool = False
    """Whether to write the surface of every spine."""


class NnunetTrainingParams(StageParams):
    """Parameters of nnU-Net training."""

    dataset_name: str = "respan"
    """Name of the dataset and of the model."""
    epochs: PositiveInt = 100
    """Epochs in all; a resumed training counts the epochs already done."""
    iterations_per_epoch: PositiveInt = 50
    """Batches per epoch."""
    batch_size: PositiveInt = 2
    """Patches per batch."""
    patch_size: Three | None = None
    """Voxels (z, y, x) of a patch; absent: nnU-Net's plan."""
    features_per_stage: Annotated[list[PositiveInt], Field(min_length=1)] | None = None
    """Feature maps per resolution stage; absent: nnU-Net's plan."""
    convolutions_per_stage: PositiveInt = 2
    """Convolutions in each stage."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd: nnU-Net's own, for long trainings; adamw: learns faster in short ones."""
    initial_learning_rate: PositiveFloat = 0.01
    """Learning rate at the start; falls polynomially to 0. For adamw 0.001 is usual."""
    class_balance: Fraction = 0.0
    """How much the cross-entropy favors rare classes: a voxel weighs (share of its class)^-balance.
    0: every voxel the same, nnU-Net's own. 1: every class the same, however rare."""
    augmentation: Literal["default", "light"] = "default"
    """default: nnU-Net's own; light: mirroring and grey values only (phantoms vary enough)."""
    flat_stages: NonNegativeInt | None = None
    """Stages, from the finest on, whose kernels stay within a plane of coarse slices; absent:
    nnU-Net's plan, which waits until pixels have become as large as slices are thick."""
    mixed_precision: bool = False
    """On a processor with AMX, multiply in bfloat16; others, which would gain nothing, are left
    alone. On a GPU nnU-Net does so in any case."""
    weight_averaging: Fraction = 0.0
    """Publish the moving average of the weights, of which every iteration keeps this share (0.99:
    the last hundred or so). 0: the last weights, nnU-Net's own."""
    seed: NonNegativeInt = 0
    """Seed of initial weights and of sampling."""
    initial_model: str = ""
    """Model folder to start from; empty: from scratch."""
