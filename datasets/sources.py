"""The known datasets, one row each: files, folder of images, intervals and what to repair.

A name of an annotation file with a * is a pattern: the name of the published file is not known
(`known_name`), only how its public converter or this project calls it. Slices are in order.
"""

import difflib
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, Literal, NamedTuple

from configs.schema import DataConfig
from datasets.fixes import Fix, forget_image_size, hands_only, strip_leading_slash, zero_betas
from utils.errors import UserError

Split = Literal["train", "test"]


class Scans(NamedTuple):
    """Where a dataset has its meshes, and how they stand."""

    ending: str
    """What the image's name has instead of its last _word: 01_img.jpg -> 01_align.ply."""
    to_camera: tuple[float, float, float]
    """Axis-angle rotation (radians) from the scanner's frame into the camera's."""

    def path_for(self, image: Path) -> Path:
        return image.with_name((image.stem.rpartition("_")[0] or image.stem) + self.ending)


class Source(NamedTuple):
    """A dataset as its files are published."""

    name: str
    train: tuple[str, ...] | None
    """Annotation files in the folder `annot`, or patterns of them; None: no such split."""
    test: tuple[str, ...] | None
    images: str
    """Folder in the folder `img`."""
    image_size: tuple[int, int] | None = None
    """Width and height of all images; the sizes that a file states come first."""
    train_interval: int = 1
    """Every k-th row is taken unless the config says otherwise."""
    test_interval: int = 1
    flat_hands: bool = False
    """Hands are given from the flat hand; what a file states comes first."""
    fixes: tuple[Fix, ...] = ()
    test_families: tuple[str, ...] = ("smplx", "smpl", "smplh")
    """Body parameters of the test split, the most wanted first; training has this order."""
    without_truth: bool = False
    """Files need no body parameters and no keypoints, and every row counts: what is known of these
    people stays with a test server, or is no body."""
    joints_from_body: bool = False
    """3D training targets are the body model's joints; those of the files are not used."""
    visible_only: bool = False
    """People are judged by what of them the image shows."""
    scans: Scans | None = None
    """Meshes beside the images, which can stand for the parameters in a test."""

    @property
    def hands_alone(self) -> bool:
        """The dataset knows nothing of the body but its hands."""
        return hands_only in self.fixes

    def files(self, split: Split) -> tuple[str, ...]:
        """Raises UserError where the dataset has no such split."""
        files = self.train if split == "train" else self.test
        if files is None:
            raise UserError(f"{self.name} has no {split} split; choose another dataset.")
        return files

    def known_name(self, split: Split) -> bool:
        return not any("*" in name for name in self.files(split))

    def interval(self, split: Split) -> int:
        return self.train_interval if split == "train" else self.test_interval


def _slices(pattern: str, count: int) -> tuple[str, ...]:
    return tuple(pattern.format(i) for i in range(count))


_HD = (1280, 720)
_FULL_HD = (1920, 1080)
_SYNBODY = ("synbody_train_230521_04000_fix_betas.npz",)
_GTA = ("gta_human2multiple_230406_04000_0.npz",)
_MAGIC = ("synbody_amass_230328_02172.npz",)
_HI4D = ("hi4d_train_240205_098.npz",)
_EHF = ("ehf_val_230908_100.npz",)
_EHF_SCANS = Scans("_align.ply", (-2.98747896, 0.01172457, -0.05704687))

_TABLE: Final = (
    Source("BEDLAM", ("bedlam_train.npz",), None, "BEDLAM"),
    Source("SPEC", ("spec_train_smpl.npz",), ("spec_test_smpl.npz",), "SPEC", _FULL_HD),
    Source("GTA_Human2", _GTA, _GTA, "GTA_Human2", _FULL_HD, flat_hands=True),
    Source("SynBody", _SYNBODY, _SYNBODY, "SynBody", _HD, flat_hands=True),
    Source("PoseTrack", ("eft_posetrack.npz",), None, "PoseTrack/data/images"),
    Source(
        "EgoBody_Egocentric",
        ("egobody_egocentric_train_230425_065_fix_betas.npz",),
        ("egobody_egocentric_test_230425_043_fix_betas.npz",),
        "EgoBody",
        _FULL_HD,
    ),
    Source(
        "EgoBody_Kinect",
        ("egobody_kinect_train_230503_065_fix_betas.npz",),
        ("egobody_kinect_test_230503_043_fix_betas.npz",),
        "EgoBody",
        _FULL_HD,
    ),
    Source("PROX", ("prox_train_smplx_new.npz",), None, "PROX", _FULL_HD),
    Source("CrowdPose", ("crowdpose_neural_annot_train_new.npz",), None, "CrowdPose"),
    Source(
        "MPI_INF_3DHP",
        tuple(f"mpi_inf_3dhp_neural_annot_part{i}.npz" for i in (1, 2, 3)),
        None,
        "MPI_INF_3DHP",
        fixes=(strip_leading_slash,),
    ),
    Source("RICH", ("rich_train_fix_betas.npz",), None, "RICH"),
    Source("MuCo", ("muco3dhp_train.npz",), None, "MuCo", (1024, 1024)),
    Source(
        "InstaVariety", ("insta_variety_neural_annot_train.npz",), None, "InstaVariety", (224, 224)
    ),
    Source(
        "Behave",
        ("behave_train_230516_231_downsampled.npz",),
        ("behave_test_230516_090_downsampled.npz",),
        "Behave",
        (2048, 1536),
    ),
    Source("UP3D", ("up3d_trainval.npz",), None, "UP3D"),
    Source(
        "ARCTIC",
        ("p1_train.npz",),
        ("p1_val.npz",),
        "ARCTIC",
        test_interval=10,
        flat_hands=True,
        fixes=(zero_betas,),
    ),
    Source("OCHuman", ("eft_ochuman.npz",), None, "OCHuman"),
    # The paths of these three begin with the dataset's own folder.
    Source(
        "CHI3D", _slices("CHI3D_train_230511_1492_{}.npz", 2), None, "", (900, 900), flat_hands=True
    ),
    Source(
        "FIT3D", _slices("FIT3D_train_230511_1504_{}.npz", 6), None, "", (900, 900), flat_hands=True
    ),
    Source(
        "HumanSC3D",
        _slices("HumanSC3D_train_230511_2752_{}.npz", 3),
        None,
        "",
        (900, 900),
        flat_hands=True,
    ),
    Source(
        "RenBody_HiRes",
        _slices("renbody_train_highrescam_230517_399_{}_fix_betas.npz", 2),
        ("renbody_test_highrescam_230517_78_0_fix_betas.npz",),
        "RenBody",
        test_interval=10,
        joints_from_body=True,
    ),
    Source(
        "RenBody",
        _slices("renbody_train_230525_399_{}.npz", 10),
        _slices("renbody_test_230525_78_{}.npz", 2),
        "RenBody",
        joints_from_body=True,
    ),
    Source("MTP", ("mtp_smplx_train.npz",), None, "MTP"),
    Source(
        "Talkshow",
        tuple(f"talkshow_smplx_{who}.npz" for who in ("chemistry", "conan", "oliver", "seth")),
        None,
        "Talkshow",
    ),
    Source("SSP3D", ("ssp3d_230525_311.npz",), None, "SSP3D", (512, 512)),
    Source("LSPET", ("eft_lspet.npz",), None, "LSPET"),
    Source("SHAPY", None, ("shapy_test_230512_1631.npz",), "SHAPY", without_truth=True),
    Source("AGORA", ("agora_train_*.npz",), ("agora_validation_*.npz",), "AGORA/data"),
    Source(
        "UBody",
        ("ubody_train_*.npz",),
        ("ubody_test_*.npz",),
        "UBody/images",
        fixes=(strip_leading_slash,),
        visible_only=True,
    ),
    Source("MSCOCO", ("mscoco_train*.npz",), ("mscoco_val*.npz",), "MSCOCO/images"),
    Source("MPII", ("mpii_train*.npz",), None, "MPII/data"),
    Source("Human36M", ("h36m_train*.npz",), ("h36m_test*.npz",), "Human36M/images"),
    Source(
        "PW3D",
        ("pw3d_train*.npz",),
        ("pw3d_test*.npz",),
        "PW3D/data/imageFiles",
        test_families=("smpl",),
    ),
    Source("EHF", None, _EHF, "EHF/data", (1600, 1200), scans=_EHF_SCANS),
    Source("SynBody_Magic1", _MAGIC, _MAGIC, "SynBody", (1600, 1200), flat_hands=True),
    Source(
        "EgoBody (generic)", ("egobody_egocentric_train_230425_065.npz",), None, "EgoBody", _FULL_HD
    ),
    Source("HumanArt", ("humanart_train*.npz",), ("humanart_val*.npz",), "HumanArt"),
    Source(
        "SynHand",
        ("synhand_20240927_241004_4628_fix_betas.npz",),
        ("synhand_20241018_test_241023_1188_fix_betas.npz",),
        "synbody",
        test_interval=10,
        flat_hands=True,
    ),
    Source(
        "FreiHand",
        ("freihand_train_*.npz",),
        ("freihand_test_*.npz",),
        "FreiHand",
        (224, 224),
        fixes=(hands_only,),
    ),
    Source(
        "InterHand",
        ("interhand26m_train_5fps_*.npz",),
        ("interhand26m_test_5fps_*.npz",),
        "InterHand",
        (334, 512),
        fixes=(hands_only,),
    ),
    Source(
        "BlurHand",
        ("blurhand_train_*.npz",),
        ("blurhand_test_*.npz",),
        "BlurHand",
        (334, 512),
        fixes=(hands_only,),
    ),
    Source(
        "HanCo",
        ("hanco_train_rgb_*.npz",),
        ("hanco_val_rgb_*.npz",),
        "HanCo",
        (224, 224),
        fixes=(hands_only,),
    ),
    Source("Hi4D", _HI4D, None, "Hi4D", (940, 1280), fixes=(forget_image_size,)),
    Source("MOYO", ("moyo_train*.npz",), ("moyo_val*.npz",), "MOYO", flat_hands=True),
    Source("GTA_Human_full", ("gta_human_full*.npz",), None, "GTA_Human_full", flat_hands=True),
    Source("SynBody_whac", ("synbody_whac_*.npz",), None, "SynBody_whac", flat_hands=True),
    Source("SynBody_full", ("synbody_full*.npz",), None, "SynBody_full", flat_hands=True),
    Source("AGORA_test", None, ("agora_test_*.npz",), "AGORA_test", without_truth=True),
    Source("BEDLAM_test", None, ("bedlam_test*.npz",), "BEDLAM_test", without_truth=True),
    Source("MotionX (fork)", ("train.npz",), ("test.npz",), "Motion-X++/images"),
    Source(
        "SignAvatar (fork)",
        ("SignAvatar_train.npz",),
        ("SignAvatar_test.npz",),
        "SignAvatar/images",
        _HD,
    ),
    Source("GTA_Human2 (fork variant)", ("gta_human2.npz",), None, "GTA_Human2", _FULL_HD),
    Source("HI4D (fork)", _HI4D, None, "HI4D", (940, 1280), 10, fixes=(forget_image_size,)),
    Source(
        "AGORA_MM (AiOS)",
        ("agora_train_3840_w_occ_multi_2010.npz",),
        ("agora_validation_multi_3840_1010.npz",),
        "agora",
    ),
    Source("BEDLAM (AiOS)", ("bedlam_train_multi_0915.npz",), None, "bedlam/train_images", None, 5),
    Source("COCO_NA (AiOS)", ("coco_wholebody_new_train_multi.npz",), None, "coco_2017"),
    Source(
        "UBody_MM (AiOS)",
        ("ubody_train_intra_multi.npz",),
        ("ubody_intra_test_all.npz",),
        "UBody",
        None,
        5,
        100,
        visible_only=True,
    ),
    Source(
        "EgoBody_Egocentric (AiOS)",
        ("egobody_egocentric_train_multi_080824.npz",),
        ("egobody_egocentric_val_multi_080824.npz",),
        "EgoBody",
        _FULL_HD,
        5,
    ),
    Source(
        "ARCTIC (AiOS)", ("p1_train_multi.npz",), ("p1_val_multi.npz",), "ARCTIC", None, 1000, 30
    ),
    Source("EHF (AiOS)", None, _EHF, "ehf", (1600, 1200), scans=_EHF_SCANS),
    # What `python -m main.synthesize` makes.
    Source("OpenPeople", ("openpeople_train.npz",), ("openpeople_test.npz",), "openpeople"),
)
SOURCES: Final[dict[str, Source]] = {source.name: source for source in _TABLE}


def find_source(name: str, config: DataConfig) -> Source:
    """The dataset of that name with the files and intervals that the config states for it.

    Raises:
        UserError: the name is neither in the table nor in `config.datasets`, or an entry there is
            incomplete.
    """
    entry = config.datasets.get(name)
    like = name if entry is None or entry.like is None else entry.like
    if like in SOURCES:
        source = SOURCES[like]._replace(name=name)
    elif entry is not None and entry.like is not None:
        raise UserError(f"data.datasets: '{name}' is like '{like}', which the table lacks")
    elif entry is None:
        known = [*SOURCES, *config.datasets]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        advice = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}."
        raise UserError(f"Unknown dataset '{name}'; {advice}")
    elif entry.images is None or (entry.train is None and entry.test is None):
        raise UserError(
            f"data.datasets: '{name}' needs 'images', and files as 'train' or 'test' or both"
        )
    else:
        source = Source(name, None, None, entry.images)
    changes = {} if entry is None else entry.model_dump(exclude_none=True, exclude={"like"})
    for split, intervals in (
        ("train", config.train_sample_interval),
        ("test", config.test_sample_interval),
    ):
        if name in intervals:
            changes[f"{split}_interval"] = intervals[name]
    return source._replace(**changes)


def source_of_file(path: Path) -> Source | None:
    """The dataset that a file belongs to by its name; None if none or several differing ones."""
    found = [
        source
        for source in SOURCES.values()
        if any(fnmatch(path.name, name) for name in (*(source.train or ()), *(source.test or ())))
    ]
    agree = len({source.flat_hands for source in found}) == 1
    return found[0] if agree else None
